// Every word of the page, by language. {name} stands for a value; of plural forms the one for {count}
// is chosen. States, events and reasons that the API may add are shown as they come.

export const TEXTS = {
  "title": { en: "Monitoring and retraining a neural network", ru: "Нейросеть: мониторинг и повторное обучение" },

  "nav": { en: "Views of this page", ru: "Разделы страницы" },
  "nav.live": { en: "Live", ru: "Сейчас" },
  "nav.jobs": { en: "Jobs", ru: "Задания" },
  "nav.models": { en: "Models", ru: "Модели" },

  "live.error": { en: "Mean error", ru: "Средняя ошибка" },
  "live.rolling": {
    en: { one: ", last row", other: ", last {count} rows" },
    ru: { one: ", последняя {count} строка", few: ", последние {count} строки", many: ", последние {count} строк" },
  },
  "live.version": { en: "Serving version", ru: "Версия в работе" },
  "live.perMinute": { en: "Rows in the last minute", ru: "Строк за минуту" },
  "live.pending": { en: "Pending rows", ru: "Строк без пары" },
  "live.dead": { en: "Dead letters", ru: "Отбракованные сообщения" },
  "live.errorChart": {
    en: "Mean absolute error of the last rows, and the version that served",
    ru: "Средняя абсолютная ошибка последних строк и версия в работе",
  },
  "live.histogram": { en: "Distribution of absolute errors", ru: "Распределение абсолютных ошибок" },
  "live.histogramRows": {
    en: { one: "last row", other: "last {count} rows" },
    ru: { one: "последняя {count} строка", few: "последние {count} строки", many: "последние {count} строк" },
  },
  "live.beyond": { en: "larger errors not shown: {count}", ru: "больших ошибок не показано: {count}" },
  "live.pairs": { en: "Predicted and true values", ru: "Предсказанные и истинные значения" },
  "live.queues": { en: "Queue backlog", ru: "Сообщений в очередях" },
  "live.events": { en: "Drift events", ru: "События дрейфа" },
  "live.since": { en: "since {time}", ru: "с {time}" },
  "live.versionError": {
    en: "version {version}: mean error {error}, rows: {count}",
    ru: "версия {version}: средняя ошибка {error}, строк: {count}",
  },
  "live.versionUnknown": { en: "unknown", ru: "неизвестна" },

  "chart.noRows": { en: "No rows yet.", ru: "Строк пока нет." },
  "chart.rows": { en: "rows", ru: "строк" },
  "chart.true": { en: "true", ru: "истинное" },
  "chart.predicted": { en: "predicted", ru: "предсказанное" },
  "chart.epoch": { en: "epoch", ru: "эпоха" },
  "chart.training": { en: "training loss", ru: "потери при обучении" },
  "chart.validation": { en: "validation loss", ru: "потери на валидации" },
  "chart.errorNow": {
    en: "Mean absolute error over time; now {error}.",
    ru: "Средняя абсолютная ошибка во времени; сейчас {error}.",
  },
  "chart.errorNowOf": {
    en: "Mean absolute error over time; now {error}, version {version} serves.",
    ru: "Средняя абсолютная ошибка во времени; сейчас {error}, работает версия {version}.",
  },
  "chart.bin": {
    en: "Rows with an error from {from} to {to}: {count}",
    ru: "Строк с ошибкой от {from} до {to}: {count}",
  },
  "chart.histogramTo": {
    en: "Histogram of absolute errors from 0 to {top}.",
    ru: "Гистограмма абсолютных ошибок от 0 до {top}.",
  },
  "chart.pairsOf": {
    en: "Predicted and true values of the last rows; points: {count}.",
    ru: "Предсказанные и истинные значения последних строк; точек: {count}.",
  },
  "chart.losses": {
    en: "Losses by epoch; in epoch {epoch} training {loss}, validation {validation}.",
    ru: "Потери по эпохам; в эпоху {epoch} при обучении {loss}, на валидации {validation}.",
  },

  "event.drift_detected": { en: "drift detected", ru: "обнаружен дрейф" },
  "event.job_submitted": { en: "job submitted", ru: "задание отправлено" },
  "event.deployed": { en: "deployed", ru: "новая версия в работе" },
  "event.confirmed": { en: "confirmed", ru: "версия подтверждена" },
  "event.not_promoted": { en: "not promoted", ru: "версия не развёрнута" },
  "event.abandoned": { en: "abandoned", ru: "попытки прекращены" },
  "event.recovered": { en: "recovered", ru: "ошибка снова в норме" },
  "event.inconclusive": { en: "inconclusive", ru: "итог неясен" },
  "event.rolled_back": { en: "rolled back", ru: "откат" },
  "event.failed": { en: "failed", ru: "сбой" },
  "event.cancelled": { en: "cancelled", ru: "задание отменено" },
  "event.refused": { en: "refused", ru: "данные отклонены" },

  "upload.title": { en: "Train on your data", ru: "Обучить на своих данных" },
  "upload.hint": {
    en: "Drop files anywhere in this box, or choose them.",
    ru: "Перетащите файлы в эту рамку или выберите их.",
  },
  "upload.data": { en: "Data: one CSV, or one for each region", ru: "Данные: один CSV или по одному на регион" },
  "upload.model": { en: "Model to continue from (optional)", ru: "Модель для дообучения (необязательно)" },
  "upload.deploy": { en: "Deploy", ru: "Развернуть" },
  "upload.ifBetter": { en: "if it is better", ru: "если окажется лучше" },
  "upload.always": { en: "always", ru: "всегда" },
  "upload.never": { en: "never", ru: "никогда" },
  "upload.more": { en: "More settings", ru: "Другие настройки" },
  "upload.target": { en: "Target column", ru: "Целевой столбец" },
  "upload.targetDefault": { en: "the last one", ru: "последний" },
  "upload.ignore": { en: "Ignored columns", ru: "Не учитывать столбцы" },
  "upload.ignoreDefault": { en: "none; for example id,date", ru: "учесть все; например: id,date" },
  "upload.epochs": { en: "Epochs", ru: "Число эпох" },
  "upload.epochsDefault": { en: "until the validation loss stops falling", ru: "пока падают потери на валидации" },
  "upload.submit": { en: "Train", ru: "Обучить" },
  "upload.progress": { en: "Upload progress", ru: "Ход отправки" },
  "upload.sent": { en: "{share} sent", ru: "Отправлено {share}" },
  "upload.checking": { en: "Sent. The server is checking the data.", ru: "Отправлено. Сервер проверяет данные." },

  "jobs.title": { en: "Jobs", ru: "Задания" },
  "jobs.id": { en: "Job", ru: "Задание" },
  "jobs.state": { en: "State", ru: "Состояние" },
  "jobs.result": { en: "Result", ru: "Результат" },
  "jobs.none": { en: "No jobs yet.", ru: "Заданий пока нет." },
  "jobs.epoch": { en: "epoch {epoch} of {epochs}, loss {loss}", ru: "эпоха {epoch} из {epochs}, потери {loss}" },

  "state.queued": { en: "queued", ru: "в очереди" },
  "state.running": { en: "running", ru: "выполняется" },
  "state.succeeded": { en: "succeeded", ru: "завершено" },
  "state.failed": { en: "failed", ru: "ошибка" },
  "state.cancelled": { en: "cancelled", ru: "отменено" },

  "job.title": { en: "Job {id}", ru: "Задание {id}" },
  "job.epochs": { en: "Epochs", ru: "Эпохи" },
  "job.waiting": { en: "Waiting for a free worker.", ru: "Ждёт свободного воркера." },
  "job.starting": { en: "The container is starting.", ru: "Контейнер запускается." },
  "job.epoch": {
    en: "Epoch {epoch} of {epochs}: loss {loss}, validation loss {validation}.",
    ru: "Эпоха {epoch} из {epochs}: потери {loss}, на валидации {validation}.",
  },
  "job.cancel": { en: "Cancel this job", ru: "Отменить задание" },
  "job.log": { en: "Training log", ru: "Журнал обучения" },

  "report.title": {
    en: "Mean absolute error on the hold-out (rows not used in training)",
    ru: "Средняя абсолютная ошибка на отложенной выборке (в обучении её строк не было)",
  },
  "report.file": { en: "Hold-out", ru: "Выборка" },
  "report.rows": { en: "Rows", ru: "Строк" },
  "report.challenger": { en: "Challenger: version {version}", ru: "Претендент: версия {version}" },
  "report.champion": { en: "Champion: version {version}", ru: "Чемпион: версия {version}" },
  "report.mean": { en: "Baseline: the mean", ru: "Всегда среднее" },
  "report.all": { en: "all", ru: "вся" },
  "report.notScored": { en: "This version was not scored.", ru: "Эту версию не оценивали." },
  "report.epochs": {
    en: { one: "1 epoch in {seconds} s", other: "{count} epochs in {seconds} s" },
    ru: { one: "{count} эпоха за {seconds} с", few: "{count} эпохи за {seconds} с", many: "{count} эпох за {seconds} с" },
  },
  "report.parameters": {
    en: { one: "1 parameter", other: "{count} parameters" },
    ru: { one: "{count} параметр", few: "{count} параметра", many: "{count} параметров" },
  },
  "report.scratch": { en: "trained from scratch", ru: "обучение с нуля" },
  "report.startedFrom": { en: "continued from {model}", ru: "дообучение {model}" },
  "report.trainedOn": {
    en: { one: "trained on 1 row", other: "trained on {count} rows" },
    ru: { one: "обучение на {count} строке", few: "обучение на {count} строках", many: "обучение на {count} строках" },
  },
  "report.versions": { en: "All versions", ru: "Все версии" },

  "models.current": { en: "Version {version} is current.", ru: "Текущая версия: {version}." },
  "models.replicas": {
    en: "Replicas of model that serve it: {serving} of {count}.",
    ru: "Реплик model, которые с ней работают: {serving} из {count}.",
  },
  "models.noReplicas": {
    en: "No replica of model has reported yet.",
    ru: "Ни одна реплика model пока не сообщила о себе.",
  },
  "models.refused": { en: "A replica refused it: {reason}", ru: "Реплика отклонила её: {reason}" },
  "models.version": { en: "Version {version}", ru: "Версия {version}" },
  "models.serves": { en: "current", ru: "текущая" },
  "models.error": { en: "error: {error}", ru: "ошибка: {error}" },
  "models.championError": { en: "version {version}: {error}", ru: "версия {version}: {error}" },
  "models.meanError": { en: "baseline (the mean): {error}", ru: "всегда среднее: {error}" },
  "models.columns": {
    en: { one: "1 column", other: "{count} columns" },
    ru: { one: "{count} столбец", few: "{count} столбца", many: "{count} столбцов" },
  },
  "models.deploy": { en: "Deploy this version", ru: "Развернуть эту версию" },
  "models.job": { en: "training job", ru: "задание обучения" },

  "token.required": {
    en: "This service requires its API_TOKEN for every change.",
    ru: "Для изменений этот сервис требует API_TOKEN.",
  },
  "token.label": { en: "Token", ru: "Токен" },
  "token.continue": { en: "Continue", ru: "Продолжить" },
  "token.cancel": { en: "Cancel", ru: "Отмена" },
  "token.missing": { en: "Nothing was changed: the token is required.", ru: "Ничего не изменено: нужен токен." },

  "problem.unreachable": {
    en: "The service does not answer. Is it running? This page reconnects by itself.",
    ru: "Сервис не отвечает. Он запущен? Страница подключится снова сама.",
  },
  "problem.answer": {
    en: "The answer of the service is not JSON. Look at the log of retrain_api.",
    ru: "Ответ сервиса не в формате JSON. Посмотрите журнал retrain_api.",
  },
};

"""One entry for all tools: docker-compose run --rm tools COMMAND, or python -m tools COMMAND.

sample [FOLDER]    write data and a model to try retraining with
dead               show what could not be used, and why
replay             send it back to where it came from
demo               watch a model lose its accuracy and recover; `make demo` starts the system
"""

import runpy
import sys
from pathlib import Path

COMMANDS = {
    "sample": ["sample.py"],
    "dead": ["dead_letters.py"],
    "replay": ["dead_letters.py", "replay"],
    "demo": ["demo.py"],
}


def main() -> None:
    command, *rest = sys.argv[1:] or [""]
    if command not in COMMANDS:
        raise SystemExit(__doc__)
    program, *arguments = COMMANDS[command]
    path = str(Path(__file__).with_name(program))
    sys.argv = [path, *arguments, *rest]
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()

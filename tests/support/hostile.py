"""Hostile programs, and the reason with which the job of each fails.

The training executes those in TRAINING (see `worker_stage.TRAIN`), the scoring those in SCORING, as
its challenger. A program that finds a way out of the sandbox says so in its reason.
"""

TRY = """
import ctypes, socket, struct, tempfile
libc = ctypes.CDLL(None, use_errno=True)
done = []
def attempt(name, action):
    try:
        result = action()
    except Exception:
        return
    if result != -1:
        done.append(name)
def report(expected=()):
    left = sorted(set(done) - set(expected))
    (OUT / "reason.txt").write_text(f"It could {left}." if left else "It could do nothing.")
    sys.exit(2)
"""
NOTHING = "It could do nothing"
LATE = "took longer than"
MEMORY = "ran out of memory"
DISK = "filled its disk"
IRREGULAR = "is not a regular file"

TIME_AND_MEMORY = {
    "an endless loop": ("while True: pass", LATE),
    "an endless loop that no signal ends": (
        "import signal\n"
        "for n in set(signal.Signals) - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
        "while True: time.sleep(1)",
        LATE,
    ),
    "stopping the deadline that is process 1": (
        "import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)\nwhile True: time.sleep(1)",
        LATE,  # the worker has one, too
    ),
    "a fork bomb": (  # whichever limit it meets first
        "while True:\n    try: os.fork()\n    except OSError: pass",
        f"{LATE}|{MEMORY}",
    ),
    "threads without end": (
        "import threading\n"
        "while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "crashed",
    ),
    "a memory hog": ("x = []\nwhile True: x.append(b'x' * (10 << 20))", MEMORY),
    "more memory than there is, at once": ("bytearray(1 << 50)", MEMORY),
    "memory taken by files in /dev/shm": (
        "with open('/dev/shm/x', 'wb') as f:\n    for _ in range(99): f.write(b'x' * 1000000)",
        f"{MEMORY}|{DISK}",
    ),
    "a daemon that stays behind": ("if os.fork() == 0: os.setsid(); time.sleep(600)", "is missing"),
    "a crash of the interpreter": ("import ctypes; ctypes.string_at(0)", "crashed"),
    "an exit code that looks like a kill": ("os._exit(137)", "killed from outside"),
}
DISKS = {
    "small files until the disk is full": (
        "for n in range(10**6): (OUT / str(n)).write_text('x')",
        DISK,
    ),
    "small files until /tmp is full": (
        "for n in range(10**6): open(f'/tmp/{n}', 'w').close()",
        DISK,
    ),
    "one file until the disk is full": (
        "with open(OUT / 'model.keras', 'wb') as f:\n    while True: f.write(bytes(1 << 20))",
        DISK,
    ),
    "two files until the disk is full": (
        "for name in 'ab':\n    (OUT / name).write_bytes(bytes(6 << 20))",
        DISK,
    ),
    "a sparse file of 100 GB": ("os.truncate(os.open(OUT / 'model.keras', 66), 100 << 30)", DISK),
    "gigabytes of log in one line": ("while True: os.write(1, b'x' * 65536)", LATE),
    "gigabytes of log in empty lines": ("while True: os.write(2, b'\\n' * 65536)", LATE),
}
OUTPUTS = {
    "nothing at all": ("", "is missing"),
    "outputs with other names": (
        "good()\nfor f in OUT.iterdir(): f.rename(f.with_suffix('.old'))",
        "is missing",
    ),
    "outputs beside the folder": ("good()\n(OUT / '../../x').write_text('x')", "crashed"),
    "symlinks to the host's secrets": (
        "good()\n(OUT / 'model.keras').unlink(); os.symlink('/etc/shadow', OUT / 'model.keras')",
        f"model.keras {IRREGULAR}",
    ),
    "a symlink upwards": (
        "good()\n(OUT / 'training.json').unlink()\n"
        "os.symlink('../../../../../etc/passwd', OUT / 'training.json')",
        f"training.json {IRREGULAR}",
    ),
    "a directory": (
        "good()\n(OUT / 'model.tflite').unlink(); (OUT / 'model.tflite').mkdir()",
        IRREGULAR,
    ),
    "a pipe": ("good()\n(OUT / 'golden.json').unlink(); os.mkfifo(OUT / 'golden.json')", IRREGULAR),
    "a socket": (
        "good()\n(OUT / 'golden.json').unlink()\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(str(OUT / 'golden.json'))",
        "golden.json (is not a regular file|cannot be read)",
    ),
    "a device": ("os.mknod(OUT / 'model.keras', 0o20666, os.makedev(1, 5))", "not permitted"),
    "a file that nobody may read": (
        "good()\n(OUT / 'training.json').write_text('{}'); (OUT / 'training.json').chmod(0)",
        "training.json is not what",
    ),
    "a report of 6 MB": (
        "good()\n(OUT / 'training.json').write_text('[' + '1,' * (3 << 20) + '1]')",
        "training.json has 6291459 bytes",
    ),
    "a report nested without end": (
        "good()\n(OUT / 'training.json').write_text('[' * (3 << 20))",
        "training.json is not what",
    ),
    "numbers that are none": (
        "good()\n(OUT / 'golden.json').write_text('{\"rows\": [[NaN]], \"predictions\": [1e999]}')",
        "golden.json is not what",
    ),
    "a reason of 6 MB": (
        "(OUT / 'reason.txt').write_text('no ' * (2 << 20)); sys.exit(2)",
        "reason.txt has",
    ),
    "a reason that commands the terminal": (
        "(OUT / 'reason.txt').write_text('\\x1b]0;owned\\x07 no \\x1b[2J'); sys.exit(2)",
        "^.0;owned no .2J$",
    ),
    "lines of progress that are none": (
        "for bad in ('{' + 'x' * (6 << 20), '{\"epoch\": 1e999, \"epochs\": 1}', '{' * 99999,\n"
        '            \'{"epoch": "1", "epochs": 1}\', \'{"epoch": -1, "epochs": 1}\'):\n'
        "    print(bad, flush=True); time.sleep(0.8)",
        "is missing",
    ),
    "progress of 100,000 epochs": (
        "for n in range(100_000): print(json.dumps({'epoch': n, 'epochs': n, 'loss': 1}))\n"
        "sys.stdout.flush(); time.sleep(1.5)",
        "is missing",
    ),
}
# Whoever reads such a file out of a running container may block for good: dockerd's tar sees the
# file, and opens the pipe.
EXCHANGE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(OUT)
for name in ("progress.json", "training.json", "model.keras", "reason.txt"):
    open(name, "w").write('{"epoch": 1, "epochs": 2}')
    os.mkfifo(f"{name}.pipe")
while True:
    for name in (b"progress.json", b"training.json", b"model.keras", b"reason.txt"):
        libc.renameat2(-100, name, -100, name + b".pipe", 2)  # RENAME_EXCHANGE
"""
WAYS_OUT = {
    "the network": (
        TRY + "socket.setdefaulttimeout(2)\n"
        "for host in ('172.17.0.1', '1.1.1.1', '169.254.169.254', '127.0.0.1', '::1'):\n"
        "    for port in (22, 53, 80, 2375, 8000):\n"
        "        attempt(f'reach {host}', lambda: socket.create_connection((host, port)))\n"
        "attempt('look up names', lambda: socket.getaddrinfo('example.org', 80))\n"
        "attempt('send raw packets', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\n"
        "done += [f'see {name}' for name in os.listdir('/sys/class/net') if name != 'lo']\n"
        "report()",
        NOTHING,
    ),
    "writing everywhere": (
        TRY + "for folder, names, _ in os.walk('/'):\n"
        "    if folder == '/proc': names[:] = ['self', 'sys']\n"
        "    attempt(folder, lambda: tempfile.TemporaryFile(dir=folder))\n"
        "report(('/out', '/tmp', '/dev/shm', '/dev/mqueue'))",
        NOTHING,
    ),
    "changing what came in": (
        TRY + "for file in [IN, *IN.iterdir()]:\n"
        "    attempt(f'change {file}', lambda: file.chmod(0o777))\n"
        "    attempt(f'remove {file}', lambda: file.unlink())\n"
        "    attempt(f'write {file}', lambda: file.open('ab'))\n"
        "    attempt(f'write beside {file}', lambda: (IN / 'x').touch())\n"
        "attempt('remount', lambda: libc.mount(b'none', b'/in', None, 32, None))\n"
        "assert (IN / 'train.npy').read_bytes() == b't' * 1000\n"
        "assert not [f for f in IN.iterdir() if b'h' * 500 in f.read_bytes()], 'the hold-out'\n"
        "report()",
        NOTHING,
    ),
    "becoming more than nobody": (
        TRY + "for n in (0, 1, 1000):\n"
        "    attempt(f'be user {n}', lambda: os.setuid(n))\n"
        "    attempt(f'be group {n}', lambda: os.setgid(n))\n"
        "for flag in (0x20000, 0x10000000, 0x40000000, 0x20000000):\n"
        "    attempt(f'unshare {flag:x}', lambda: libc.unshare(flag))\n"
        "attempt('mount', lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))\n"
        "attempt('chroot', lambda: os.chroot('/tmp'))\n"
        "attempt('nice', lambda: os.nice(-5))\n"
        "attempt('name the host', lambda: socket.sethostname('x'))\n"
        "attempt('set the clock', lambda: time.clock_settime(0, 0))\n"
        "done += [f for f in ('/etc/shadow', '/dev/mem', '/dev/kmsg', '/proc/kcore', '/dev/vda',\n"
        "         '/var/run/docker.sock', '/proc/1/environ') if os.access(f, os.R_OK)]\n"
        "report(['/proc/1/environ'])",  # that is itself
        NOTHING,
    ),
    "ending process 1": (
        TRY + "child = os.fork()\n"
        "if child == 0:\n"
        "    os.kill(1, 9)\n"
        "    os._exit(0)\n"
        "time.sleep(1)\n"
        "attempt('load a module', lambda: libc.syscall(313, 0, b'', 0))\n"
        "attempt('reboot', lambda: libc.syscall(169, 0xfee1dead, 672274793, 0x1234567, 0))\n"
        "attempt('keyctl', lambda: libc.syscall(250, 0, -3, 1))\n"
        "attempt('bpf', lambda: libc.syscall(321, 0, 0, 0))\n"
        "for f in ('/proc/sysrq-trigger', '/sys/fs/cgroup/memory/memory.limit_in_bytes',\n"
        "          '/proc/sys/kernel/core_pattern', '/sys/kernel/uevent_helper'):\n"
        "    attempt(f, lambda: open(f, 'w'))\n"
        "report()",
        NOTHING,
    ),
}
TRAINING = TIME_AND_MEMORY | DISKS | OUTPUTS | WAYS_OUT

LIE = '(OUT / "scores.json").write_text({!r}); sys.exit(0)'
MAE = '{"inputs": 10, "outputs": 1, "regions": [], "mae": %s}'
SCORING = {
    "a malformed .tflite": ("\x00\x01\x02 TFL", "The scoring crashed"),
    "an endless loop": ("while True: pass", LATE),
    "a memory hog": ("x = []\nwhile True: x.append(b'x' * (10 << 20))", MEMORY),
    "no scores": ("sys.exit(0)", "scores.json is missing"),
    "scores by symlink": (
        'os.symlink(IN / "job.json", OUT / "scores.json"); sys.exit(0)',
        f"scores.json {IRREGULAR}",
    ),
    "an error below nothing": (
        LIE.format(MAE % '{"challenger": -1e9, "champion": 1, "mean": 1}'),
        "scores.json is not what",
    ),
    "an error that is no number": (
        LIE.format(MAE % '{"challenger": NaN, "champion": 1, "mean": 1}'),
        "scores.json is not what",
    ),
    "an error as text": (
        LIE.format(MAE % '{"challenger": "0", "champion": 1, "mean": 1}'),
        "scores.json is not what",
    ),
    "an error too large for a number": (
        LIE.format(MAE % '{"challenger": 1e999, "champion": 1, "mean": 1}'),
        "scores.json is not what",
    ),
    "a list of 6 MB": (
        '(OUT / "scores.json").write_text("[" * (6 << 20)); sys.exit(0)',
        "scores.json has 6291456 bytes",
    ),
}

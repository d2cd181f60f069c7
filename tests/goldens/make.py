#!/usr/bin/env python3
"""Makes every golden again, in place: `make goldens`, or tests/goldens/make.py [--verl FOLDER] [NAME...].

NAME: a folder here. The folders loss, objectives, semantics and verifier run verl's own functions: two checkouts, 4f80e465 and b178a3c, are
expected in FOLDER (build/verl), and are cloned where they are absent. README.md says what must be installed.
"""
import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VERL = "https://github.com/volcengine/verl"
COMMITS = {"published": "4f80e465", "january": "b178a3c"}
ARGUMENTS = {"loss": ["january"], "objectives": ["january"], "semantics": ["published", "january"], "verifier": ["january"]}


def checkout(folder, name):
    path = folder / COMMITS[name]
    if not path.exists():
        if not (folder / "clone").exists():
            subprocess.run(["git", "clone", "--quiet", VERL, folder / "clone"], check=True)
        subprocess.run(["git", "-C", folder / "clone", "worktree", "add", "--quiet", "--detach", path.resolve(), COMMITS[name]], check=True)
    return str(path)


def main():
    names = sorted(p.parent.name for p in HERE.glob("*/make.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verl", type=pathlib.Path, default=ROOT / "build/verl")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(names))
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        sys.exit(f"{', '.join(unknown)}: expected one of {', '.join(names)}")
    for name in options.names or names:
        print(f"{name}/", flush=True)
        arguments = [checkout(options.verl, commit) for commit in ARGUMENTS.get(name, [])]
        subprocess.run([sys.executable, HERE / name / "make.py", *arguments], check=True)
    subprocess.run(["git", "-C", ROOT, "status", "--short", "tests/goldens"], check=False)


if __name__ == "__main__":
    main()

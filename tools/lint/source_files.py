"""The files of a tree: what git tracks or would, or all of it where git knows nothing of it."""

import pathlib
import subprocess


def source_files(root, *suffixes):
    """Paths relative to `root`, sorted; those that end in one of `suffixes`, or all."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        paths = [pathlib.Path(name) for name in listing.stdout.split("\0") if name]
    else:
        paths = [path.relative_to(root) for path in pathlib.Path(root).rglob("*")]
        paths = [path for path in paths if path.parts[0] not in ("build", "out", ".git")]
    return sorted(path for path in set(paths)
                  if (not suffixes or path.suffix in suffixes) and (root / path).is_file())

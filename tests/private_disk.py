"""A file system of the test's own: ext4 on a loop device, so that its flush counter counts nobody else's syncs, and
so that it can be frozen without freezing the machine. Needs root and loop devices."""

import os
import pathlib
import shutil
import subprocess
import time

from chronik_process import scratch


def unavailable():
    """Why there can be no private disk here, or None."""
    if os.geteuid() != 0:
        return "needs root (loop mount)"
    for tool in ("losetup", "mkfs.ext4", "mount", "fsfreeze"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    probe = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"no loop device: {probe.stderr.strip()}"


def flushes_of(device):
    """Completed flush requests of a block device, from its kernel statistics."""
    fields = pathlib.Path(f"/sys/block/{device}/stat").read_text().split()
    return int(fields[15])


def device_of(path):
    """The block device (whole disk) that holds `path`."""
    status = os.stat(path)
    link = pathlib.Path(f"/sys/dev/block/{os.major(status.st_dev)}:{os.minor(status.st_dev)}").resolve()
    return link.name if (link / "queue").exists() else link.parent.name


class PrivateDisk:
    def __init__(self, size_mib=1024, mount_options=None):
        self.home = scratch("disk")
        self.image = self.home / "image"
        self.path = self.home / "mount"
        self.path.mkdir()
        self.frozen = False
        with open(self.image, "wb") as image:
            image.truncate(size_mib << 20)
        self._run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.loop = self._run("losetup", "--find", "--show", self.image)
        options = ["-o", mount_options] if mount_options else []
        self._run("mount", *options, self.loop, self.path)

    @staticmethod
    def _run(*command):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        return done.stdout.strip()

    def flushes(self):
        return flushes_of(os.path.basename(self.loop))

    def freeze(self):
        self._run("fsfreeze", "--freeze", self.path)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self._run("fsfreeze", "--unfreeze", self.path)
            self.frozen = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thaw()
        for attempt in range(50):
            try:
                self._run("umount", self.path)
                break
            except RuntimeError:
                if attempt == 49:
                    raise
                time.sleep(0.2)
        self._run("losetup", "--detach", self.loop)
        shutil.rmtree(self.home, ignore_errors=True)

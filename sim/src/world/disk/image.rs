//! All files of a disk: names and contents together, and what each operation does to them.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::io;
use std::path::Path;

use bytes::Bytes;
use io_backend::OpenHow;
use io_backend::disk::DirEntry;
use twox_hash::XxHash3_64;

use super::file::{Covered, FileState};
use super::names::{Inode, Named, Names, parent};
use crate::streams::Stream;

#[derive(Default)]
pub struct Image {
    names: Names,
    files: BTreeMap<Inode, FileState>,
    /// Handles open on each file.
    open: BTreeMap<Inode, u64>,
    inodes: u64,
    /// Bytes of all files as they are now.
    used: u64,
}

fn error(kind: io::ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, text.to_owned())
}

fn not_found() -> io::Error {
    error(io::ErrorKind::NotFound, "no such file or directory")
}

impl Image {
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn file(&self, inode: Inode) -> Option<&FileState> {
        self.files.get(&inode)
    }

    /// Changes a file, and keeps account of what the disk holds.
    pub fn alter<R>(&mut self, inode: Inode, change: impl FnOnce(&mut FileState) -> R) -> Option<R> {
        let file = self.files.get_mut(&inode)?;
        let before = file.current().len();
        let result = change(file);
        self.used = self.used - before + file.current().len();
        Some(result)
    }

    /// Bytes of all files as they are now.
    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.names.get(path).is_some()
    }

    pub fn open(&mut self, path: &Path, how: OpenHow) -> io::Result<Inode> {
        let inode = match (self.names.get(path), how) {
            (Some(Named::Dir), _) => {
                return Err(error(io::ErrorKind::IsADirectory, "is a directory"));
            }
            (Some(Named::File(_)), OpenHow::CreateNew) => {
                return Err(error(io::ErrorKind::AlreadyExists, "file exists"));
            }
            (Some(Named::File(inode)), _) => inode,
            (None, OpenHow::ReadOnly | OpenHow::Existing) => return Err(not_found()),
            (None, OpenHow::OrCreate | OpenHow::CreateNew) => {
                if !self.names.is_dir(parent(path)) {
                    return Err(not_found());
                }
                self.inodes += 1;
                let inode = Inode(self.inodes);
                self.files.insert(inode, FileState::default());
                self.names.add(path, Named::File(inode));
                inode
            }
        };
        *self.open.entry(inode).or_default() += 1;
        Ok(inode)
    }

    /// A handle was dropped.
    pub fn close(&mut self, inode: Inode) {
        if let Some(handles) = self.open.get_mut(&inode) {
            *handles -= 1;
            if *handles == 0 {
                self.open.remove(&inode);
                self.forget_if_unnamed(inode);
            }
        }
    }

    fn forget_if_unnamed(&mut self, inode: Inode) {
        if !self.open.contains_key(&inode)
            && !self.names.refers_to(inode)
            && let Some(file) = self.files.remove(&inode)
        {
            self.used -= file.current().len();
        }
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for dir in way {
            match self.names.get(dir) {
                Some(Named::Dir) => {}
                Some(Named::File(_)) => {
                    return Err(error(io::ErrorKind::NotADirectory, "a file stands in the way"));
                }
                None => self.names.add(dir, Named::Dir),
            }
        }
        Ok(())
    }

    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        match self.names.get(path) {
            None => Err(not_found()),
            Some(Named::File(_)) => Err(error(io::ErrorKind::NotADirectory, "not a directory")),
            Some(Named::Dir) => Ok(self
                .names
                .list(path)
                .into_iter()
                .map(|(name, named)| match named {
                    Named::Dir => DirEntry { name, is_dir: true, len: 0 },
                    Named::File(inode) => {
                        let len = self.files.get(&inode).map_or(0, |file| file.current().len());
                        DirEntry { name, is_dir: false, len }
                    }
                })
                .collect()),
        }
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let what = self.names.get(from).ok_or_else(not_found)?;
        if !self.names.is_dir(parent(to)) {
            return Err(not_found());
        }
        match (what, self.names.get(to)) {
            (Named::File(_), Some(Named::Dir)) => {
                return Err(error(io::ErrorKind::IsADirectory, "the target is a directory"));
            }
            (Named::Dir, Some(Named::File(_))) => {
                return Err(error(io::ErrorKind::NotADirectory, "the target is a file"));
            }
            (Named::Dir, Some(Named::Dir)) if !self.names.list(to).is_empty() => {
                return Err(error(io::ErrorKind::DirectoryNotEmpty, "the target is not empty"));
            }
            _ => {}
        }
        if from != to {
            self.names.rename(from, to);
        }
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            None => Err(not_found()),
            Some(Named::Dir) => Err(error(io::ErrorKind::IsADirectory, "is a directory")),
            Some(Named::File(_)) => {
                self.names.remove(path);
                Ok(())
            }
        }
    }

    pub fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            None => Ok(()),
            Some(Named::File(_)) => Err(error(io::ErrorKind::NotADirectory, "not a directory")),
            Some(Named::Dir) => {
                self.names.remove(path);
                Ok(())
            }
        }
    }

    pub fn sync_dir(&mut self, path: &Path, number: u64) {
        for inode in self.names.sync_dir(path, number) {
            self.forget_if_unnamed(inode);
        }
    }

    /// What a file system does that runs out of room: it makes its names durable, so that removed files give theirs back.
    pub fn commit_names(&mut self) {
        for dir in self.names.unsynced_dirs() {
            self.sync_dir(&dir, u64::MAX);
        }
    }

    pub fn sync(&mut self, inode: Inode, number: u64) -> Option<Covered> {
        self.alter(inode, |file| file.sync(number))
    }

    pub fn write(&mut self, inode: Inode, position: u64, data: Bytes) {
        self.alter(inode, |file| file.write(position, data));
    }

    /// Bytes of these files that no sync covers yet.
    pub fn unsynced_bytes(&self, of: impl Fn(&Path) -> bool) -> u64 {
        let files = self.names.files(false).filter(|(path, _)| of(path));
        files.filter_map(|(_, inode)| self.files.get(&inode)).map(FileState::unsynced_bytes).sum()
    }

    /// The power goes: un-synced names and bytes are kept, dropped or torn. Returns how many names were not synced.
    pub fn power_loss(&mut self, stream: &mut Stream) -> usize {
        for file in self.files.values_mut() {
            file.power_loss(stream);
        }
        let names = self.names.power_loss(stream);
        self.open.clear();
        self.files.retain(|inode, _| self.names.refers_to(*inode));
        self.used = self.files.values().map(|file| file.current().len()).sum();
        names
    }

    pub fn wipe(&mut self) {
        let inodes = self.inodes;
        *self = Image { inodes, ..Image::default() };
    }

    /// Names and contents that are durable, as one number: equal images have equal ones.
    pub fn digest(&self) -> u64 {
        let mut hasher = XxHash3_64::new();
        for (path, inode) in self.names.files(true) {
            hasher.write(path.as_os_str().as_encoded_bytes());
            if let Some(file) = self.files.get(&inode) {
                file.durable().feed(&mut hasher);
            }
        }
        hasher.finish()
    }
}

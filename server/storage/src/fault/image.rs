//! What a simulated disk holds: names and contents, each as programs see it and as far as it is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{SECTOR_BYTES, snapshot::Rows};
use crate::disk::folder_of;

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    names: BTreeMap<String, Node>,
    durable_names: BTreeMap<String, Node>,
    renames: Vec<NameChange>,
    inodes: Vec<Inode>,
    pub(super) capacity_bytes: Option<u64>,
    /// The snapshot, all of it durable.
    pub(super) rows: Rows,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Folder,
    File(usize),
}

/// A change of names that no sync has made durable.
#[derive(Clone, Debug)]
enum NameChange {
    Set(String, Node),
    Move(String, String, Node),
    Unset(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

impl Image {
    pub(super) fn make_folder(&mut self, path: &str) -> io::Result<()> {
        if !self.names.contains_key(path) {
            self.set_name(path, Node::Folder);
        }
        Ok(())
    }

    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.check_folder(folder)?;
        let inside = self.names.keys().filter(|path| folder_of(path) == folder);
        Ok(inside.map(|path| path[if folder.is_empty() { 0 } else { folder.len() + 1 }..].to_owned()).collect())
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<usize> {
        self.check_folder(folder_of(path))?;
        match self.names.get(path) {
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(inode)) => {
                let inode = *inode;
                self.set_size(inode, 0)?;
                Ok(inode)
            }
            None => {
                let inode = self.inodes.len();
                self.inodes.push(Inode::default());
                self.set_name(path, Node::File(inode));
                Ok(inode)
            }
        }
    }

    pub(super) fn file(&self, path: &str) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let node = Node::File(self.file(from)?);
        self.check_folder(folder_of(to))?;
        self.names.remove(from);
        self.names.insert(to.to_owned(), node);
        self.renames.push(NameChange::Move(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.file(path)?;
        self.names.remove(path);
        self.renames.push(NameChange::Unset(path.to_owned()));
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, path: &str) -> io::Result<()> {
        self.check_folder(path)?;
        let durable = &mut self.durable_names;
        self.renames.retain(|change| {
            let here = folder_of(change.name()) == path;
            if here {
                change.apply(durable);
            }
            !here
        });
        Ok(())
    }

    pub(super) fn size_bytes(&self, inode: usize) -> u64 {
        size(&self.inodes[inode].seen)
    }

    pub(super) fn read(&self, inode: usize, at: u64, into: &mut [u8]) -> usize {
        let rest = usize::try_from(at).ok().and_then(|at| self.inodes[inode].seen.get(at..)).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        read
    }

    pub(super) fn write(&mut self, inode: usize, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let room = self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()));
        let file = &mut self.inodes[inode];
        let fits = file.seen.len().saturating_add(usize::try_from(room).unwrap_or(usize::MAX));
        let written = bytes.len().min(fits.saturating_sub(at));
        if written == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let change = Change::Write(at, bytes[..written].to_vec());
        change.apply(&mut file.seen);
        file.pending.push(change);
        Ok(written)
    }

    pub(super) fn set_size(&mut self, inode: usize, bytes: u64) -> io::Result<()> {
        let size = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let file = &mut self.inodes[inode];
        Change::Size(size).apply(&mut file.seen);
        file.pending.push(Change::Size(size));
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: usize) {
        let file = &mut self.inodes[inode];
        for change in file.pending.drain(..) {
            change.apply(&mut file.durable);
        }
    }

    /// What was written is still seen, and no sync will make it durable.
    pub(super) fn give_up(&mut self, inode: usize) {
        self.inodes[inode].pending.clear();
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files().map(|inode| size(&self.inodes[inode].seen)).sum()
    }

    pub(super) fn unsynced(&self) -> usize {
        self.renames.len() + self.inodes.iter().flat_map(|inode| &inode.pending).map(Change::pieces).sum::<usize>()
    }

    pub(super) fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Self {
        let mut names = self.durable_names.clone();
        for change in self.renames.iter().filter(|_| keep()) {
            change.apply(&mut names);
        }
        let folders = names.clone();
        names.retain(|path, _| folder_of(path).is_empty() || folders.get(folder_of(path)) == Some(&Node::Folder));
        let inodes = self.inodes.iter().map(|inode| inode.after_crash(&mut keep)).collect();
        let mut image = Self {
            durable_names: names.clone(),
            names,
            renames: Vec::new(),
            inodes,
            capacity_bytes: self.capacity_bytes,
            rows: self.rows.clone(),
        };
        image.drop_nameless();
        image
    }

    /// As it is, without the files that no name leads to: whoever had them open is gone.
    pub(super) fn after_kill(&self) -> Self {
        let mut image = self.clone();
        image.drop_nameless();
        image
    }

    fn drop_nameless(&mut self) {
        let changed = self.renames.iter().map(NameChange::node);
        let named = self.names.values().chain(self.durable_names.values()).copied().map(Some).chain(changed);
        let named: BTreeSet<usize> =
            named.filter_map(|node| if let Some(Node::File(inode)) = node { Some(inode) } else { None }).collect();
        for (_, inode) in self.inodes.iter_mut().enumerate().filter(|(number, _)| !named.contains(number)) {
            *inode = Inode::default();
        }
    }

    pub(super) fn flip(&mut self, path: &str, bit: usize) {
        if let Ok(inode) = self.file(path) {
            let file = &mut self.inodes[inode];
            for bytes in [&mut file.seen, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    pub(super) fn contents(&self, path: &str) -> Option<Vec<u8>> {
        self.file(path).ok().map(|inode| self.inodes[inode].seen.clone())
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.names.iter().filter(|(_, node)| **node != Node::Folder).map(|(path, _)| path.clone()).collect()
    }

    fn files(&self) -> impl Iterator<Item = usize> {
        self.names.values().filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Folder => None,
        })
    }

    fn check_folder(&self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.names.get(path) == Some(&Node::Folder) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn set_name(&mut self, path: &str, node: Node) {
        self.names.insert(path.to_owned(), node);
        self.renames.push(NameChange::Set(path.to_owned(), node));
    }
}

impl Inode {
    fn after_crash(&self, keep: &mut impl FnMut() -> bool) -> Self {
        let mut durable = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Write(at, bytes) => {
                    for (at, sector) in sectors(*at, bytes).filter(|_| keep()) {
                        write(&mut durable, at, sector);
                    }
                }
                Change::Size(_) if keep() => change.apply(&mut durable),
                Change::Size(_) => {}
            }
        }
        Self { seen: durable.clone(), durable, pending: Vec::new() }
    }
}

impl NameChange {
    fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Move(_, name, _) | Self::Unset(name) => name,
        }
    }

    const fn node(&self) -> Option<Node> {
        match self {
            Self::Set(_, node) | Self::Move(_, _, node) => Some(*node),
            Self::Unset(_) => None,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
            Self::Unset(name) => {
                names.remove(name);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => write(bytes, *at, new),
            Self::Size(size) => bytes.resize(*size, 0),
        }
    }

    fn pieces(&self) -> usize {
        match self {
            Self::Write(at, bytes) => sectors(*at, bytes).count(),
            Self::Size(_) => 1,
        }
    }
}

/// Cuts a write at the borders of sectors.
fn sectors(mut at: usize, mut bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    std::iter::from_fn(move || {
        let (sector, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
        let place = at;
        (at, bytes) = (at + sector.len(), rest);
        (!sector.is_empty()).then_some((place, sector))
    })
}

fn write(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let end = at + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(new);
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits 64 bits")
}

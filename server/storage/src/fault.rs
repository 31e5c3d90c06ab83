//! A disk in memory that loses, tears, refuses and damages: for tests only.
//!
//! It keeps what is durable apart from what programs see. [`FaultDisk::after_crash`] makes the disk that a machine finds
//! after a power cut: every sector that was not synced is kept or lost, one by one, in any order, and so is every name.

mod image;
mod snapshot;

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::disk::{Disk, File};
use image::Image;
pub use snapshot::FaultSnapshot;

/// What a crash keeps or loses as a whole.
pub const SECTOR_BYTES: usize = 512;

/// What happens at one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The call fails. A write leaves half of its bytes. A sync gives up on what was written to that file: programs still
    /// see it, later syncs succeed, and a power cut takes it. Other calls do nothing.
    Io,
    /// The call fails for want of room. A write leaves half of its bytes.
    NoSpace,
    /// A write does half and says so; other calls do all.
    Short,
    /// The machine stops before the call does anything.
    CrashBefore,
    /// The machine stops when the call is done, and nobody hears of it.
    CrashAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Io, Self::NoSpace, Self::Short, Self::CrashBefore, Self::CrashAfter];

    /// Whether the machine stops.
    pub fn is_crash(self) -> bool {
        match self {
            Self::CrashBefore | Self::CrashAfter => true,
            Self::Io | Self::NoSpace | Self::Short => false,
        }
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct State {
    image: Image,
    calls: u64,
    plan: Option<(u64, Fault)>,
    crashed: bool,
    syncs: u64,
    hold_syncs: bool,
    waiting: u64,
}

/// An open file of a [`FaultDisk`].
#[derive(Debug)]
pub struct FaultFile {
    disk: FaultDisk,
    inode: usize,
}

impl FaultDisk {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a call fail, counted from 0 over the life of the disk, crashes included.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.lock().plan = Some((call, fault));
    }

    /// Lets no call fail that has not yet.
    pub fn fail_never(&self) {
        self.lock().plan = None;
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How many syncs of files succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Whether the machine stopped. All calls fail until [`Self::after_crash`].
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Stops the machine now.
    pub fn crash(&self) {
        self.lock().crashed = true;
    }

    /// How many bytes the files together may have; nothing for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().image.capacity_bytes = bytes;
    }

    /// How many bytes the files together have.
    pub fn used_bytes(&self) -> u64 {
        self.lock().image.used_bytes()
    }

    /// Lets every sync of a file wait until this is called with `false`.
    pub fn hold_syncs(&self, hold: bool) {
        self.lock().hold_syncs = hold;
        self.shared.changed.notify_all();
    }

    /// Waits until a sync waits.
    pub fn wait_for_held_sync(&self) {
        let state = self.lock();
        let waits = self.shared.changed.wait_while(state, |state| state.waiting == 0);
        drop(waits.unwrap_or_else(PoisonError::into_inner));
    }

    /// How many sectors and names a crash now would keep or lose.
    pub fn unsynced(&self) -> usize {
        self.lock().image.unsynced()
    }

    /// The disk after a power cut; `keep` is asked for every unsynced name and sector. This one stays as it is.
    pub fn after_crash(&self, keep: impl FnMut() -> bool) -> Self {
        let state = self.lock();
        Self::of(State { image: state.image.after_crash(keep), crashed: false, ..*state })
    }

    /// The disk after the process alone was killed: all that it wrote is there, and not yet durable.
    pub fn after_kill(&self) -> Self {
        let state = self.lock();
        Self::of(State { image: state.image.after_kill(), crashed: false, ..*state })
    }

    /// Flips one bit of a file, on the disk and in what programs see. Nothing happens beyond its end.
    pub fn flip(&self, path: &str, bit: usize) {
        self.lock().image.flip(path, bit);
    }

    /// What a file holds, without a call.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().image.contents(path)
    }

    /// The names of all files with their paths, without a call.
    pub fn paths(&self) -> Vec<String> {
        self.lock().image.paths()
    }

    fn of(state: State) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and does it, unless it is to fail.
    fn call<T>(&self, act: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        match state.enter()? {
            None | Some(Fault::Short) => act(&mut state.image),
            Some(Fault::Io) => Err(broken()),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::CrashBefore | Fault::CrashAfter) => {
                let _ = act(&mut state.image);
                state.crashed = true;
                Err(stopped())
            }
        }
    }
}

impl State {
    fn enter(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(stopped());
        }
        let call = self.calls;
        self.calls += 1;
        match self.plan {
            Some((planned, Fault::CrashBefore)) if planned == call => {
                self.crashed = true;
                Err(stopped())
            }
            Some((planned, fault)) if planned == call => Ok(Some(fault)),
            Some(_) | None => Ok(None),
        }
    }
}

impl Disk for FaultDisk {
    type File = FaultFile;

    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.call(|image| image.make_folder(path))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.call(|image| image.list(folder))
    }

    fn create(&self, path: &str) -> io::Result<FaultFile> {
        let inode = self.call(|image| image.create(path))?;
        Ok(FaultFile { disk: self.clone(), inode })
    }

    fn open(&self, path: &str) -> io::Result<FaultFile> {
        let inode = self.call(|image| image.file(path))?;
        Ok(FaultFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|image| image.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(|image| image.remove(path))
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.call(|image| image.sync_folder(path))
    }
}

impl File for FaultFile {
    fn size_bytes(&self) -> io::Result<u64> {
        self.disk.call(|image| Ok(image.size_bytes(self.inode)))
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.call(|image| Ok(image.read(self.inode, at, into)))
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.lock();
        let half = &bytes[..bytes.len() / 2];
        match state.enter()? {
            None => state.image.write(self.inode, at, bytes),
            Some(Fault::Short) => state.image.write(self.inode, at, if half.is_empty() { bytes } else { half }),
            Some(Fault::Io) => state.image.write(self.inode, at, half).and(Err(broken())),
            Some(Fault::NoSpace) => state.image.write(self.inode, at, half).and(Err(io::ErrorKind::StorageFull.into())),
            Some(Fault::CrashBefore | Fault::CrashAfter) => {
                let _ = state.image.write(self.inode, at, bytes);
                state.crashed = true;
                Err(stopped())
            }
        }
    }

    fn set_size(&mut self, bytes: u64) -> io::Result<()> {
        self.disk.call(|image| image.set_size(self.inode, bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fault = state.enter()?;
        state.waiting += 1;
        self.disk.shared.changed.notify_all();
        let held = self.disk.shared.changed.wait_while(state, |state| state.hold_syncs);
        let mut state = held.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        match fault {
            None | Some(Fault::Short) => {
                state.syncs += 1;
                state.image.sync(self.inode);
                Ok(())
            }
            Some(Fault::Io) => {
                state.image.give_up(self.inode);
                Err(broken())
            }
            Some(Fault::NoSpace) => {
                state.image.give_up(self.inode);
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::CrashBefore | Fault::CrashAfter) => {
                state.image.sync(self.inode);
                state.crashed = true;
                Err(stopped())
            }
        }
    }
}

/// Keeps or loses by the bits of a number, from the lowest; beyond 64 everything is lost.
pub fn by_bits(mut bits: u64) -> impl FnMut() -> bool {
    move || {
        let keep = bits & 1 == 1;
        bits >>= 1;
        keep
    }
}

/// Keeps or loses by chance, the same for the same seed.
pub fn by_seed(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        // SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

fn broken() -> io::Error {
    io::Error::other("the simulated disk failed")
}

fn stopped() -> io::Error {
    io::Error::other("the simulated machine stopped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{read_all, write_all};

    fn written(path: &str, bytes: &[u8]) -> FaultDisk {
        let disk = FaultDisk::new();
        let mut file = disk.create(path).unwrap();
        write_all(&mut file, 0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_folder("").unwrap();
        disk
    }

    #[test]
    fn what_is_synced_survives_and_nothing_else_must() {
        let disk = written("a", &[1; 1024]);
        let mut file = disk.open("a").unwrap();
        write_all(&mut file, 0, &[2; 1536]).unwrap();
        disk.create("b").unwrap();
        assert_eq!(disk.unsynced(), 4);
        let nothing = disk.after_crash(|| false);
        assert_eq!((nothing.contents("a").unwrap(), nothing.paths()), (vec![1; 1024], vec!["a".to_owned()]));
        let all = disk.after_crash(|| true);
        assert_eq!((all.contents("a").unwrap(), all.paths().len()), (vec![2; 1536], 2));
        assert_eq!(disk.after_kill().contents("a").unwrap(), vec![2; 1536]);
    }

    #[test]
    fn later_sectors_survive_without_earlier_ones() {
        let disk = written("a", &[1; 1024]);
        let mut file = disk.open("a").unwrap();
        write_all(&mut file, 256, &[2; 512]).unwrap();
        let torn = disk.after_crash(by_bits(0b10)).contents("a").unwrap();
        assert_eq!(torn, [vec![1; 512], vec![2; 256], vec![1; 256]].concat());
    }

    #[test]
    fn a_file_without_its_name_is_gone() {
        let disk = FaultDisk::new();
        let mut file = disk.create("a").unwrap();
        write_all(&mut file, 0, b"x").unwrap();
        file.sync().unwrap();
        assert!(disk.after_crash(|| false).paths().is_empty());
    }

    #[test]
    fn a_rename_happens_whole_or_not_at_all() {
        let disk = written("a", b"new");
        disk.create("b").unwrap();
        disk.sync_folder("").unwrap();
        disk.rename("a", "b").unwrap();
        let before = disk.after_crash(|| false);
        assert_eq!((before.contents("a"), before.contents("b")), (Some(b"new".to_vec()), Some(Vec::new())));
        let after = disk.after_crash(|| true);
        assert_eq!((after.contents("a"), after.contents("b")), (None, Some(b"new".to_vec())));
    }

    #[test]
    fn what_a_failed_sync_gave_up_is_seen_until_a_crash() {
        let disk = written("a", b"old");
        let mut file = disk.open("a").unwrap();
        write_all(&mut file, 0, b"new").unwrap();
        disk.fail_at(disk.calls(), Fault::Io);
        file.sync().unwrap_err();
        file.sync().unwrap();
        let disk = disk.after_kill();
        assert_eq!(disk.contents("a").unwrap(), b"new");
        assert_eq!(disk.after_crash(|| true).contents("a").unwrap(), b"old");
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let disk = written("a", b"abc");
        disk.set_capacity(Some(5));
        let mut file = disk.create("b").unwrap();
        let error = write_all(&mut file, 0, b"defg").unwrap_err();
        assert_eq!((error.kind(), disk.contents("b").unwrap()), (io::ErrorKind::StorageFull, b"de".to_vec()));
        disk.remove("a").unwrap();
        write_all(&mut file, 0, b"defg").unwrap();
    }

    #[test]
    fn each_fault_strikes_once_at_its_call() {
        for fault in Fault::ALL {
            let disk = written("a", b"");
            disk.fail_at(disk.calls() + 1, fault);
            let mut file = disk.open("a").unwrap();
            let written = file.write_at(0, b"abcd");
            assert_eq!(written.is_ok(), fault == Fault::Short, "{fault:?}");
            assert_eq!(disk.is_crashed(), fault.is_crash(), "{fault:?}");
            let size = match fault {
                Fault::CrashBefore => 0,
                Fault::CrashAfter => 4,
                Fault::Io | Fault::NoSpace | Fault::Short => 2,
            };
            assert_eq!(disk.contents("a").unwrap().len(), size, "{fault:?}");
            assert_eq!(read_all(&file, 9).is_err(), fault.is_crash(), "{fault:?}");
        }
    }

    #[test]
    fn a_folder_and_what_is_in_it_need_a_sync_each() {
        let disk = FaultDisk::new();
        disk.make_folder("log").unwrap();
        disk.create("log/a").unwrap();
        disk.sync_folder("log").unwrap();
        assert!(disk.after_crash(|| false).paths().is_empty());
        disk.sync_folder("").unwrap();
        assert_eq!(disk.after_crash(|| false).list("log").unwrap(), ["a"]);
    }
}

//! The data directory of `dev`: made once, the same at each start.

use std::{
    fs, io,
    path::{self, Path, PathBuf},
    time::SystemTime,
};

use specter_storage::disk;

use crate::{
    identity::pki::{self, PkiError},
    private,
};

/// The directory, held by this process.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: disk::Folder,
}

impl Folder {
    /// Makes the directory and the certificates, or checks those that are there.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        // The lines to paste must work in any directory.
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let unusable = |source| FolderError::Unusable { path: path.clone(), source };
        let found = match fs::read_to_string(path.join("VERSION")) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(unusable(source)),
        };
        match &found {
            Some(found) if found == VERSION => {}
            Some(found) => return Err(FolderError::OtherVersion { path, found: found.clone() }),
            None if is_in_use(&path) => return Err(FolderError::Foreign { path }),
            None => {}
        }
        let lock = disk::Folder::open(&path)?;
        if found.is_none() {
            replace(&path.join("VERSION"), &format!("{VERSION}\n")).map_err(unusable)?;
        }
        let folder = Self { path: path.clone(), _lock: lock };
        folder.make_certificates().map_err(|error| folder.describe(error))?;
        Ok(folder)
    }

    /// Where the certificates are.
    pub(super) fn certificates(&self) -> PathBuf {
        self.path.join("certs")
    }

    /// What a visitor or client must trust.
    pub(super) fn ca(&self) -> PathBuf {
        self.certificates().join("gateway-ca.crt")
    }

    /// Where the node keeps its store.
    pub(super) fn node(&self) -> PathBuf {
        self.path.join("node")
    }

    /// Where another node keeps its store, counted from two.
    pub(super) fn node_of(&self, number: u8) -> PathBuf {
        self.path.join(format!("node-{number}"))
    }

    /// Where the certificates of another node are.
    pub(super) fn certificates_of(&self, number: u8) -> PathBuf {
        self.path.join(format!("certs-{number}"))
    }

    /// How many nodes have been started here: those that are left out would be missed.
    pub(super) fn nodes(&self) -> u8 {
        (2..=NODES_MAX).rev().find(|number| self.node_of(*number).exists()).unwrap_or(1)
    }

    /// Makes the certificates of another node, unless they are there.
    pub(super) fn make_certificates_of(&self, number: u8) -> Result<(), FolderError> {
        let made = self.make_aside(&self.certificates_of(number), |aside| {
            pki::node(&self.certificates(), aside, "localhost", SystemTime::now())
        });
        made.map_err(|error| self.describe(error))
    }

    /// Writes the configuration of another node, and tells where.
    pub(super) fn write_node_config(&self, number: u8, text: &str) -> Result<PathBuf, FolderError> {
        let path = self.path.join(format!("node-{number}.toml"));
        replace(&path, text).map_err(|source| FolderError::Unusable { path: self.path.clone(), source })?;
        Ok(path)
    }

    /// Whether no process has the store of another node.
    pub(super) fn hold(&self, number: u8) -> Result<(), FolderError> {
        disk::Folder::open(&self.node_of(number))?;
        Ok(())
    }

    /// The client's configuration.
    pub(super) fn client_config(&self) -> PathBuf {
        self.path.join("client.yaml")
    }

    /// Writes the client's configuration, or sets apex and target in the one that is there: certificate, key and
    /// hostname in it stay.
    pub(super) fn write_client_config(&self, apex: &str, target: &str) -> Result<(), FolderError> {
        let path = self.client_config();
        let unusable = |source| FolderError::Unusable { path: self.path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Ok(text) => with_values(&text, apex, target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                with_values(&TEMPLATE.replace("{mark}", MARK), apex, target)
            }
            Err(source) => return Err(unusable(source)),
        };
        replace(&path, &text).map_err(unusable)
    }

    fn make_certificates(&self) -> Result<(), MakeError> {
        self.make_aside(&self.certificates(), |aside| pki::init(aside, "localhost", SystemTime::now()))
    }

    /// Made aside and renamed, so that a crash leaves no half directory.
    fn make_aside(&self, path: &Path, make: impl FnOnce(&Path) -> Result<(), PkiError>) -> Result<(), MakeError> {
        if path.exists() {
            return Ok(());
        }
        let aside = path.with_extension("new");
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        make(&aside)?;
        fs::rename(&aside, path)?;
        Ok(private::sync_folder(&self.path)?)
    }

    fn describe(&self, error: MakeError) -> FolderError {
        match error {
            MakeError::Pki(error) => FolderError::Pki(error),
            MakeError::Io(source) => FolderError::Unusable { path: self.path.clone(), source },
        }
    }
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made or written.
    #[error("the data directory {} cannot be written; make it writable for this user, or give another with --data-dir",
        path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another version of this program made it.
    #[error("the data directory {} has format {found}, and this version of specter-server knows format {VERSION} only; \
        move it away to start anew, or give another with --data-dir", path.display())]
    OtherVersion {
        /// The directory.
        path: PathBuf,
        /// What its `VERSION` says.
        found: String,
    },
    /// Something else is in it.
    #[error("the directory {} holds files that `specter-server dev` did not make; give an empty one with --data-dir",
        path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(transparent)]
    Held(#[from] disk::FolderError),
    /// The certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether there is anything but what an interrupted first start leaves.
fn is_in_use(path: &Path) -> bool {
    let Ok(entries) = path.read_dir() else { return false };
    entries.filter_map(Result::ok).any(|entry| entry.file_name() != "LOCK" && entry.file_name() != "VERSION.new")
}

/// Sets the values of the marked lines.
fn with_values(text: &str, apex: &str, target: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        let value = match line.split_once(": ") {
            Some((key, _)) if line.ends_with(MARK) => match key.trim_start_matches([' ', '-']) {
                "apex" => Some((key, apex)),
                "target" => Some((key, target)),
                _ => None,
            },
            Some(_) | None => None,
        };
        match value {
            Some((key, value)) => lines.push_str(&format!("{key}: \"{value}\" {MARK}")),
            None => lines.push_str(line),
        }
        lines.push('\n');
    }
    lines
}

/// Writes a file of this user's so that a crash leaves either the old or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    private::create_new(&aside, text.as_bytes())?;
    fs::rename(&aside, path)?;
    private::sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// The most nodes.
pub const NODES_MAX: u8 = 9;

/// Format of the directory. A change that this version's files cannot be used with raises it.
const VERSION: &str = "1";

/// Ends the lines that each start sets anew. Whoever removes it keeps a line as it is.
const MARK: &str = "# set at each start of specter-server dev";

const TEMPLATE: &str = "\
# The client of `specter-server dev`. It has written its key, its certificate and its hostname here.
version: 2
apex: \"\" {mark}
caFile: certs/gateway-ca.crt
tunnels:
  - target: \"\" {mark}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_finds_the_same_certificates_and_keeps_what_the_client_wrote() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a b");
        let folder = Folder::open(&path).unwrap();
        let ca = fs::read(folder.ca()).unwrap();
        folder.write_client_config("localhost:1", "http://127.0.0.1:1").unwrap();
        let written = fs::read_to_string(folder.client_config()).unwrap() + "    hostname: a-b-c-d-e\nprivKey: x\n";
        fs::write(folder.client_config(), &written).unwrap();
        drop(folder);

        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::read(folder.ca()).unwrap(), ca);
        folder.write_client_config("localhost:2", "tcp://127.0.0.1:22").unwrap();
        let expected =
            written.replace("localhost:1", "localhost:2").replace("http://127.0.0.1:1\"", "tcp://127.0.0.1:22\"");
        assert_eq!(fs::read_to_string(folder.client_config()).unwrap(), expected);
        assert_eq!(private::exposure(&folder.client_config()).unwrap(), 0);
    }

    #[test]
    fn lines_without_the_mark_are_the_users() {
        let text = "apex: example.com\ntunnels:\n  - target: tcp://127.0.0.1:22\n";
        assert_eq!(with_values(text, "localhost:1", "x://y"), text);
    }

    #[test]
    fn what_cannot_be_used_is_told_in_one_sentence() {
        let parent = tempfile::tempdir().unwrap();
        let other = parent.path().join("other");
        drop(Folder::open(&other).unwrap());
        fs::write(other.join("VERSION"), "7\n").unwrap();
        let error = Folder::open(&other).unwrap_err().to_string();
        assert!(error.contains("format 7") && error.contains("--data-dir"), "{error}");

        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.txt"), "").unwrap();
        assert!(matches!(Folder::open(&foreign), Err(FolderError::Foreign { .. })));
        assert_eq!(foreign.read_dir().unwrap().count(), 1, "nothing was added");

        let held = parent.path().join("held");
        let _first = Folder::open(&held).unwrap();
        assert!(matches!(Folder::open(&held), Err(FolderError::Held(_))));

        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("x")).unwrap_err().to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_good() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("dev");
        let folder = Folder::open(&path).unwrap();
        fs::rename(folder.certificates(), path.join("certs.new")).unwrap();
        drop(folder);
        assert!(Folder::open(&path).unwrap().ca().exists());
    }
}

//! Directories of containers.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::Flock;

use super::lock;
use super::record::Record;
use crate::failure::{Failure, Result, Status};
use crate::kill_points::pass;

/// The socket's name in a container's directory.
pub const CONTROL_SOCKET: &str = "control.sock";
const STATE: &str = "state.json";
const LOCK: &str = "lock";
/// Longest name of a container (a file name).
const MAX_ID: usize = 255;

/// `--root`.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A container whose lock is held: nobody else changes it.
#[derive(Debug)]
pub struct Container {
    /// What is known of it. [`Container::save`] writes it.
    pub record: Record,
    dir: PathBuf,
    _lock: Option<Flock<File>>,
}

/// Where state is kept if nothing else is said.
#[must_use]
pub fn default_root() -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    match runtime_dir {
        Some(dir) if !nix::unistd::geteuid().is_root() => dir.join("nanovisor"),
        _ => PathBuf::from("/run/nanovisor"),
    }
}

/// A name as runc takes them: letters, digits, `_`, `+`, `-`, `.`, and no path.
///
/// # Errors
/// It is none.
pub fn check_id(id: &str) -> Result<()> {
    let clean = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.'));
    if clean && !id.is_empty() && id.len() <= MAX_ID && id != "." && id != ".." {
        return Ok(());
    }
    Err(Failure::runtime("invalid container ID format"))
}

/// runc's word, which containerd looks for.
fn does_not_exist() -> Failure {
    Failure::runtime("container does not exist")
}

impl Store {
    /// The store at `root`, or the usual one.
    ///
    /// # Errors
    /// A relative path that cannot be made absolute.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let root = root.map_or_else(default_root, Path::to_owned);
        let root =
            std::path::absolute(&root).map_err(|e| Failure::runtime(format!("--root {}: {e}", root.display())))?;
        Ok(Store { root })
    }

    /// Where something of `name` lies that is no container.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The same, made for its owner alone where it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let failed = |e: io::Error| Failure::io(Status::Runtime, &format!("--root {}", self.root.display()), &e);
        DirBuilder::new().recursive(true).mode(0o711).create(&self.root).map_err(failed)?;
        let path = self.path(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// Makes the directory of a new container, and takes its lock.
    ///
    /// # Errors
    /// The name is taken or no name; the directory cannot be made.
    pub fn create(&self, record: Record) -> Result<Container> {
        check_id(&record.id)?;
        let failed = |e: io::Error| Failure::io(Status::Runtime, &format!("--root {}", self.root.display()), &e);
        DirBuilder::new().recursive(true).mode(0o711).create(&self.root).map_err(failed)?;
        let dir = self.root.join(&record.id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Failure::runtime("container with given ID already exists"));
            }
            other => other.map_err(failed)?,
        }
        let made = Self::fill(record, dir.clone());
        if made.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        made
    }

    fn fill(record: Record, dir: PathBuf) -> Result<Container> {
        let path = dir.join(LOCK);
        let failed = |e: io::Error| Failure::io(Status::Runtime, &path.display().to_string(), &e);
        File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(failed)?;
        let lock = lock::take(&path, lock::PATIENCE)?;
        let container = Container { record, dir, _lock: lock };
        container.save()?;
        Ok(container)
    }

    /// The record of a container, without its lock: for looking.
    ///
    /// # Errors
    /// There is none, or none that this version reads.
    pub fn look(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        read(&self.root.join(id))
    }

    /// A container with its lock: for changing it.
    ///
    /// # Errors
    /// There is none; another command holds it for too long.
    pub fn take(&self, id: &str) -> Result<Container> {
        self.take_within(id, lock::PATIENCE)
    }

    fn take_within(&self, id: &str, patience: Duration) -> Result<Container> {
        check_id(id)?;
        let dir = self.root.join(id);
        if !dir.is_dir() {
            return Err(does_not_exist());
        }
        let lock = lock::take(&dir.join(LOCK), patience)?.ok_or_else(does_not_exist)?;
        Ok(Container { record: read(&dir)?, dir, _lock: Some(lock) })
    }

    /// A container to be removed whatever holds it: after `patience` without the lock.
    ///
    /// # Errors
    /// There is none; its record cannot be read (its directory is removed then).
    pub fn take_by_force(&self, id: &str, patience: Duration) -> Result<Container> {
        check_id(id)?;
        let dir = self.root.join(id);
        if !dir.is_dir() {
            return Err(does_not_exist());
        }
        let lock = lock::take(&dir.join(LOCK), patience).unwrap_or_else(|e| {
            log::warn!("{e}; going on without its lock");
            None
        });
        match read(&dir) {
            Ok(record) => Ok(Container { record, dir, _lock: lock }),
            Err(e) => {
                // Died between making the directory and writing the first record: there is nothing else of it.
                let _ = fs::remove_dir_all(&dir);
                Err(e)
            }
        }
    }

    /// Where the directory of a container is.
    ///
    /// # Errors
    /// `id` is no name.
    pub fn container_path(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.root.join(id))
    }

    /// The directory of a container.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn directory(&self, id: &str) -> Result<OwnedFd> {
        open_dir(&self.container_path(id)?)
    }

    /// The directory in which the socket of `record`'s sandbox is.
    ///
    /// # Errors
    /// It cannot be opened: the sandbox is gone.
    pub fn socket_directory(&self, record: &Record) -> Result<OwnedFd> {
        match &record.pod {
            Some(pod) => open_dir(&pod.directory).map_err(|_| Failure::runtime("container not running")),
            None => self.directory(&record.id),
        }
    }

    /// All containers, by name. What cannot be read is warned about.
    #[must_use]
    pub fn all(&self) -> Vec<Record> {
        let names = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut found: Vec<Record> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok() && self.root.join(id).is_dir())
            .filter_map(|id| read(&self.root.join(&id)).map_err(|e| log::warn!("load container {id}: {e}")).ok())
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(dir);
    opened.map(OwnedFd::from).map_err(|e| Failure::runtime(format!("{}: {e}", dir.display())))
}

fn read(dir: &Path) -> Result<Record> {
    let path = dir.join(STATE);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(does_not_exist()),
        other => other.map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?,
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?;
    if record.is_ours() {
        return Ok(record);
    }
    let text = format!("{}: written by another version of nanovisor; use that one for this container", path.display());
    Err(Failure::runtime(text))
}

impl Container {
    /// Replaces the record, which is whole before and after, whatever happens meanwhile.
    ///
    /// # Errors
    /// The disk is full; the directory is gone.
    pub fn save(&self) -> Result<()> {
        let failed = |e: io::Error| Failure::io(Status::Runtime, &self.dir.join(STATE).display().to_string(), &e);
        let json = serde_json::to_vec(&self.record).map_err(|e| failed(e.into()))?;
        let temporary = self.dir.join(format!("{STATE}.new"));
        let mut file =
            File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
        file.write_all(&json).and_then(|()| file.sync_data()).map_err(failed)?;
        fs::rename(&temporary, self.dir.join(STATE)).map_err(failed)
    }

    /// The container's directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn directory(&self) -> Result<OwnedFd> {
        open_dir(&self.dir)
    }

    /// Forgets the container. The record goes first, so that a half-removed directory is no container any more.
    pub fn forget(self) {
        for name in [STATE, CONTROL_SOCKET] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        pass("delete-record");
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            log::warn!("{}: {e}", self.dir.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::Bundle;
    use oci_spec::runtime::Spec;

    fn record(id: &str) -> Record {
        Record::new(id, &Bundle { dir: "/b".into(), root: "/b/rootfs".into(), spec: Spec::default() })
    }

    #[test]
    fn names_are_runc_s() {
        for good in ["a", "a.b_c+d-E9", "0"] {
            check_id(good).unwrap();
        }
        for bad in ["", "a/b", "..", ".", "a b", "ä", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_container_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&dir.path().join("deep/root"))).unwrap();
        assert!(store.all().is_empty());
        let mut container = store.create(record("one")).unwrap();
        let taken = store.create(record("one")).unwrap_err();
        assert!(taken.message.contains("already exists"), "{taken}");
        container.record.phase = super::super::Phase::Created;
        container.save().unwrap();
        assert_eq!(store.look("one").unwrap().phase, super::super::Phase::Created);
        assert!(store.take_within("one", Duration::from_millis(20)).unwrap_err().message.contains("another command"));
        store.take_by_force("one", Duration::from_millis(20)).unwrap();
        drop(container);
        store.take("one").unwrap().forget();
        assert!(store.take("one").unwrap_err().message.contains("does not exist"));
        assert!(store.all().is_empty());
    }

    #[test]
    fn a_half_made_container_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        fs::create_dir(dir.path().join("half")).unwrap();
        assert!(store.take("half").is_err());
        assert!(store.take_by_force("half", Duration::from_millis(20)).is_err());
        assert!(!dir.path().join("half").exists());
    }
}

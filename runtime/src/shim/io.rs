//! A process's streams as containerd names them: FIFOs (or files) whose other ends it has. They are handed to the sandbox as
//! they are, so that no byte goes through us.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// What containerd asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Standard input; empty for none.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// A terminal instead, which is fed from the first and shown on the second.
    pub terminal: bool,
}

/// The ends that are the process's, and what we keep open beside them.
pub struct Streams {
    /// Standard input, output and error.
    pub ends: [OwnedFd; 3],
    /// What keeps them alive.
    pub kept: Kept,
}

/// Ends that we hold while there is the process.
#[derive(Default)]
pub struct Kept {
    /// Readers of its output: it must not die of a pipe that breaks when containerd restarts.
    readers: Vec<File>,
    /// A writer of its input: it has no end before it is closed by a call, which every client makes. Whether the client's own
    /// end was opened yet cannot be seen.
    writer: Option<File>,
    /// A FIFO that somebody of ours may be waiting at.
    awaited: Option<Awaited>,
}

impl Kept {
    /// Nobody will write to it any more.
    pub fn close_input(&mut self) {
        self.writer = None;
    }

    /// Somebody of ours opens this FIFO, and waits for a writer; not longer than this lives.
    pub fn awaits(&mut self, name: &str) {
        self.awaited = Some(Awaited(name.into()));
    }

    /// All of both.
    pub fn extend(&mut self, other: Kept) {
        self.readers.extend(other.readers);
        self.writer = self.writer.take().or(other.writer);
        self.awaited = self.awaited.take().or(other.awaited);
    }
}

/// A FIFO that is waited at.
struct Awaited(PathBuf);

impl Drop for Awaited {
    fn drop(&mut self) {
        // A writer that comes and goes.
        let _ = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.0);
    }
}

/// Opens all three.
///
/// # Errors
/// One that cannot be opened, or is of a kind that is not known.
pub fn open(wanted: &Wanted) -> Result<Streams> {
    let mut kept = Kept::default();
    let (stdin, input) = open_input(&wanted.stdin)?;
    kept.extend(input);
    let (stdout, output) = open_output(&wanted.stdout)?;
    kept.extend(output);
    let (stderr, output) = open_output(&wanted.stderr)?;
    kept.extend(output);
    Ok(Streams { ends: [stdin.into(), stdout.into(), stderr.into()], kept })
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |e| Failure::runtime(format!("opening the stream {}: {e}", path.display()))
}

fn null() -> Result<File> {
    let path = Path::new("/dev/null");
    File::options().read(true).write(true).open(path).map_err(failed(path))
}

/// The path of a stream: plain, or as a `file:` URI.
fn path_of(name: &str) -> Result<Option<PathBuf>> {
    match name.split_once("://") {
        _ if name.is_empty() => Ok(None),
        None | Some(("fifo", _)) => Ok(Some(name.strip_prefix("fifo://").unwrap_or(name).into())),
        Some(("file", path)) => Ok(Some(path.split('?').next().unwrap_or(path).into())),
        Some((kind, _)) => {
            Err(Failure::runtime(format!("streams of the kind {kind}: are not supported, only FIFOs and file:")))
        }
    }
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_fifo())
}

/// The end to write to.
///
/// # Errors
/// It cannot be opened.
pub fn open_output(name: &str) -> Result<(File, Kept)> {
    let Some(path) = path_of(name)? else { return Ok((null()?, Kept::default())) };
    if !is_fifo(&path) {
        let file = OpenOptions::new().append(true).create(name.starts_with("file://")).open(&path);
        return Ok((file.map_err(failed(&path))?, Kept::default()));
    }
    // A reader first: then opening to write does not wait.
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(failed(&path))?;
    let writer = File::options().write(true).open(&path).map_err(failed(&path))?;
    Ok((writer, Kept { readers: vec![reader], ..Kept::default() }))
}

/// The end to read from, with a writer of ours.
fn open_input(name: &str) -> Result<(File, Kept)> {
    let Some(path) = path_of(name)? else { return Ok((null()?, Kept::default())) };
    if !is_fifo(&path) {
        return Ok((File::open(&path).map_err(failed(&path))?, Kept::default()));
    }
    // For both ways, which never waits; then there is a writer, and opening to read does not either.
    let writer = File::options().read(true).write(true).open(&path).map_err(failed(&path))?;
    let reader = File::open(&path).map_err(failed(&path))?;
    Ok((reader, Kept { writer: Some(writer), ..Kept::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn fifo(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn output_outlives_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let name = fifo(dir.path(), "out");
        let (mut end, kept) = open_output(&name).unwrap();
        let mut reader = File::open(&name).unwrap();
        end.write_all(b"one").unwrap();
        let mut word = [0; 3];
        reader.read_exact(&mut word).unwrap();
        drop(reader);
        end.write_all(b"two").unwrap();
        let mut reader = File::open(&name).unwrap();
        drop((end, kept));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!((&word, rest.as_str()), (b"one", "two"));
    }

    #[test]
    fn input_ends_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let name = fifo(dir.path(), "in");
        let (mut end, mut kept) = open_input(&name).unwrap();
        File::options().write(true).open(&name).unwrap().write_all(b"word").unwrap();
        let mut word = [0; 4];
        end.read_exact(&mut word).unwrap();
        kept.close_input();
        assert_eq!((&word, end.read(&mut [0]).unwrap()), (b"word", 0));
    }

    #[test]
    fn nobody_waits_longer_than_the_process_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let name = fifo(dir.path(), "in");
        let mut kept = Kept::default();
        kept.awaits(&name);
        let waiting = std::thread::spawn(move || File::open(name).unwrap().read(&mut [0]).unwrap());
        // It may not have come to its open yet: then the next writer that comes and goes is for it.
        while !waiting.is_finished() {
            drop(std::mem::take(&mut kept));
            kept.awaits(dir.path().join("in").to_str().unwrap());
        }
        assert_eq!(waiting.join().unwrap(), 0);
    }

    #[test]
    fn kinds_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("file://{}/log?maxsize=3", dir.path().display());
        open_output(&uri).unwrap().0.write_all(b"x").unwrap();
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"x");
        assert!(open_output("binary:///usr/bin/logger").is_err());
        open_output("").unwrap().0.write_all(b"x").unwrap();
    }
}

//! Looking into images: `info`, `ls`, `cat`, `verify`.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rofs::{FileType, Follow, Inode, Reader};

use super::{build::uuid, corrupt, load};
use crate::failure::{Failure, Result, Status};

/// `nanovisor image info`.
pub fn info(image: &Path) -> Result<()> {
    let opened = load(image)?;
    let sb = opened.superblock();
    let name = String::from_utf8_lossy(&sb.volume_name).trim_end_matches('\0').to_owned();
    let mut lines = vec![
        ("format", "EROFS, uncompressed, 4096-byte blocks".to_owned()),
        ("uuid", uuid(&sb.uuid)),
        ("size", format!("{} bytes", sb.image_size())),
        ("files", sb.inodes.to_string()),
        ("checksum", if sb.has_checksum() { "crc32c" } else { "none" }.to_owned()),
        ("features", format!("compatible {:#x}, incompatible {:#x}", sb.feature_compat, sb.feature_incompat)),
    ];
    if !name.is_empty() {
        lines.push(("name", name));
    }
    print(|out| lines.iter().try_for_each(|(key, value)| writeln!(out, "{key:<10}{value}")))
}

/// `nanovisor image ls`.
pub fn ls(image: &Path, path: &Path, recursive: bool) -> Result<()> {
    let opened = load(image)?;
    let reader = opened.reader();
    let top = walk(image, &reader, path, Follow::Yes)?;
    let mut lines = Lines { image, reader, out: BufWriter::new(io::stdout().lock()) };
    let result = if top.file_type == FileType::Directory {
        lines.directory(&top, path.as_os_str().as_bytes(), recursive, 0)
    } else {
        lines.line(&top, path.as_os_str().as_bytes())
    };
    result.and_then(|()| lines.out.flush().or_else(closed))
}

struct Lines<'a, W: Write> {
    image: &'a Path,
    reader: Reader<'a>,
    out: W,
}

/// Deeper than any path that Linux can name (PATH_MAX / 2): a directory that holds itself ends here.
const MAX_DEPTH: usize = 2048;

impl<W: Write> Lines<'_, W> {
    fn directory(&mut self, dir: &Inode, path: &[u8], recursive: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(corrupt(self.image, &"directories nest without end"));
        }
        let reader = self.reader;
        for entry in reader.read_dir(dir, 0).map_err(|e| corrupt(self.image, &e))? {
            let entry = entry.map_err(|e| corrupt(self.image, &e))?;
            if matches!(entry.name, b"." | b"..") {
                continue;
            }
            let inode = reader.inode(entry.nid).map_err(|e| corrupt(self.image, &e))?;
            let full = [path.strip_suffix(b"/").unwrap_or(path), b"/", entry.name].concat();
            self.line(&inode, if recursive { &full } else { entry.name })?;
            if recursive && inode.file_type == FileType::Directory {
                self.directory(&inode, &full, true, depth + 1)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, inode: &Inode, name: &[u8]) -> Result<()> {
        let size = match inode.file_type {
            FileType::CharDevice | FileType::BlockDevice => format!("{}, {}", inode.rdev.0, inode.rdev.1),
            _ => inode.size.to_string(),
        };
        let target = match inode.file_type {
            FileType::Symlink => {
                let target = self.reader.readlink(inode).map_err(|e| corrupt(self.image, &e))?;
                format!(" -> {}", printable(target))
            }
            _ => String::new(),
        };
        let (mode, links, uid, gid) = (mode(inode.mode), inode.nlink, inode.uid, inode.gid);
        writeln!(self.out, "{mode} {links:>3} {uid:>5} {gid:>5} {size:>10} {}{target}", printable(name)).or_else(closed)
    }
}

/// `nanovisor image cat`.
pub fn cat(image: &Path, path: &Path) -> Result<()> {
    let opened = load(image)?;
    let reader = opened.reader();
    let file = walk(image, &reader, path, Follow::Yes)?;
    if file.file_type != FileType::Regular {
        return Err(Failure::runtime(format!("{}: {} is no regular file", image.display(), path.display())));
    }
    let mut out = io::stdout().lock();
    let mut buf = vec![0u8; 1 << 20];
    let mut offset = 0;
    loop {
        let got = reader.read_at(&file, offset, &mut buf).map_err(|e| corrupt(image, &e))?;
        if got == 0 {
            return out.flush().or_else(closed);
        }
        if opened.get_ref().is_poisoned() {
            return Err(corrupt(image, &"a page could not be read (the file shrank, or the disk failed)"));
        }
        let written = out.write_all(buf.get(..got).unwrap_or_default());
        if written.is_err() {
            return written.or_else(closed);
        }
        offset += got as u64;
    }
}

/// `nanovisor image verify`.
pub fn verify(image: &Path) -> Result<()> {
    let opened = load(image)?;
    let problems = rofs::verify(&opened.reader());
    let poisoned = opened.get_ref().is_poisoned();
    if let (Some(first), more) = (problems.first(), problems.len().saturating_sub(1)) {
        for problem in &problems {
            print(|out| writeln!(out, "{problem}"))?;
        }
        let text = format!("image {}: {first} (and {more} more); build it again", image.display());
        return Err(Failure::new(Status::ImageCorrupt, text));
    }
    if poisoned {
        return Err(corrupt(image, &"a page could not be read (the file shrank, or the disk failed)"));
    }
    print(|out| writeln!(out, "{}: sound, {} files", image.display(), opened.superblock().inodes))
}

fn walk(image: &Path, reader: &Reader<'_>, path: &Path, follow: Follow) -> Result<Inode> {
    reader.walk(path.as_os_str().as_bytes(), follow).map_err(|e| match e {
        rofs::Error::NotFound | rofs::Error::NotADirectory(_) => {
            Failure::new(Status::NotFound, format!("{}: {}: {e}", image.display(), path.display()))
        }
        other => corrupt(image, &other),
    })
}

/// Writes to standard output; a reader that went away (`| head`) is no failure.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out).and_then(|()| out.flush()).or_else(closed)
}

fn closed(error: io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        io::ErrorKind::StorageFull => Err(Failure::new(Status::DiskFull, format!("standard output: {error}"))),
        _ => Err(Failure::runtime(format!("standard output: {error}"))),
    }
}

/// A name of an untrusted image, for a terminal.
fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `drwxr-xr-x`.
fn mode(mode: u16) -> String {
    let kind = match FileType::from_mode(mode) {
        Some(FileType::Directory) => 'd',
        Some(FileType::Symlink) => 'l',
        Some(FileType::CharDevice) => 'c',
        Some(FileType::BlockDevice) => 'b',
        Some(FileType::Fifo) => 'p',
        Some(FileType::Socket) => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for shift in [6, 3, 0] {
        let bits = mode >> shift & 7;
        let special = match shift {
            6 => (mode & 0o4000 != 0, 's', 'S'),
            3 => (mode & 0o2000 != 0, 's', 'S'),
            _ => (mode & 0o1000 != 0, 't', 'T'),
        };
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, special) {
            (true, (true, set, _)) => set,
            (false, (true, _, only)) => only,
            (true, _) => 'x',
            (false, _) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode(0o040_755), "drwxr-xr-x");
        assert_eq!(mode(0o104_755), "-rwsr-xr-x");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o102_644), "-rw-r-Sr--");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
    }

    #[test]
    fn names_cannot_play_with_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}

//! Building images, with progress on a terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use rofs::build::{self, BuildError, Options, Progress, Summary};

use crate::failure::{Failure, Result, Status};

/// `nanovisor image build`.
pub fn command(src: &Path, out: &Path) -> Result<()> {
    let summary = if src == Path::new("-") {
        from_tar(&mut io::stdin().lock(), Path::new("standard input"), out)
    } else if src.is_dir() {
        from_dir(src, out)
    } else {
        let mut file = File::open(src).map_err(|e| {
            let text =
                format!("{}: {e}; give a directory, a tar file, or - for a tar on standard input", src.display());
            Failure::new(Status::ImageBuild, text)
        })?;
        from_tar(&mut file, src, out)
    }?;
    let (files, size) = (HumanCount(summary.inodes), HumanBytes(summary.image_bytes));
    println!("{}: {files} files, {size}, uuid {}", out.display(), uuid(&summary.uuid));
    Ok(())
}

/// Builds an image of a directory.
pub fn from_dir(src: &Path, out: &Path) -> Result<Summary> {
    let bar = bar(out);
    let mut progress = |p: &Progress<'_>| report(bar.as_ref(), p);
    finish(bar.as_ref(), build::from_dir(src, out, &Options::default(), &mut progress))
}

fn from_tar(tar: &mut dyn Read, name: &Path, out: &Path) -> Result<Summary> {
    let mut head = [0u8; 6];
    let got =
        read_up_to(tar, &mut head).map_err(|e| Failure::new(Status::ImageBuild, format!("{}: {e}", name.display())))?;
    let head = head.get(..got).unwrap_or_default();
    if let Some(tool) = compressor(head) {
        let text = format!(
            "{}: compressed; unpack it on the way: {tool} -dc FILE | nanovisor image build - {}",
            name.display(),
            out.display()
        );
        return Err(Failure::new(Status::ImageBuild, text));
    }
    let bar = bar(out);
    let mut progress = |p: &Progress<'_>| report(bar.as_ref(), p);
    finish(bar.as_ref(), build::from_tar(&mut head.chain(tar), name, out, &mut progress))
}

fn read_up_to(from: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The tool for a compressed archive, by its first bytes.
fn compressor(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];
    known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, tool)| tool)
}

/// A progress line; none where standard error is no terminal.
fn bar(out: &Path) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let style =
        ProgressStyle::with_template("{spinner} {prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style).with_prefix(out.display().to_string());
    bar.enable_steady_tick(Duration::from_millis(120));
    Some(bar)
}

fn report(bar: Option<&ProgressBar>, progress: &Progress<'_>) -> ControlFlow<()> {
    // Setting the message costs more than looking at a small file does.
    if let Some(bar) = bar.filter(|_| progress.files.is_multiple_of(64)) {
        let (files, bytes) = (HumanCount(progress.files), HumanBytes(progress.bytes));
        bar.set_message(format!("{files} files, {bytes}  {}", progress.path.display()));
    }
    ControlFlow::Continue(())
}

fn finish(bar: Option<&ProgressBar>, result: build::Result<Summary>) -> Result<Summary> {
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result.map_err(|e| {
        let status = if matches!(e, BuildError::NoSpace { .. }) { Status::DiskFull } else { Status::ImageBuild };
        Failure::new(status, e.to_string())
    })
}

/// A UUID in its usual form.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_archives_are_known() {
        assert_eq!(compressor(b"\x28\xb5\x2f\xfd\0\0"), Some("zstd"));
        assert_eq!(compressor(b"./\0\0\0\0"), None);
        assert_eq!(compressor(b""), None);
    }

    #[test]
    fn uuids() {
        assert_eq!(uuid(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}

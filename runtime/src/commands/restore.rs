//! `restore`.

use std::fs::File;
use std::io::{self, Write};

use super::create::{Making, Restoring, run_attached};
use super::{Context, checkpoint, write_pid};
use crate::checkpoint::Folder;
use crate::cli::oci::BundleArgs;
use crate::cli::snapshots::RestoreArgs;
use crate::failure::{Failure, Result, Status};
use crate::hooks::{self, Kind};
use crate::sandbox::config::{InstanceConfig, Life};
use crate::sandbox::watch;
use crate::state::Status as Phase;

/// `nanovisor restore`: the program's exit status, or 0 with `--detach`.
///
/// # Errors
/// The snapshot, the bundle or the host does not let us: nothing is left of the container then.
pub fn restore(cx: &Context, args: &RestoreArgs) -> Result<u8> {
    if args.console_socket.is_some() {
        return Err(Failure::new(Status::Usage, "--console-socket: a restored container has plain streams"));
    }
    checkpoint::warn_of_criu(&args.criu);
    let folder = Folder::open(&args.image_path)?;
    if args.eager {
        read_ahead(&folder)?;
    }
    let bundle = BundleArgs {
        bundle: args.bundle.clone(),
        console_socket: None,
        pid_file: args.pid_file.clone(),
        no_pivot: false,
        no_new_keyring: false,
        console_on_stdin: false,
        default_annotation: Vec::new(),
        preserve_fds: 0,
        id: args.id.clone(),
    };
    let instance = InstanceConfig { name: Some(args.id.clone()), ..InstanceConfig::default() };
    let restoring = Some(Restoring { fds: folder.into_fds(), instance, blank: None });
    if !args.detach {
        let signals = watch::block_signals()?;
        let making = Making { cx, args: &bundle, life: Life::Attached, restoring, bundle: None };
        return run_attached(making, signals, args.keep);
    }
    let making = Making { cx, args: &bundle, life: Life::Detached, restoring, bundle: None };
    let (container, process) = making.make()?;
    write_pid(args.pid_file.as_deref(), process.pid()).inspect_err(|_| {
        super::delete::destroy(&container.record);
    })?;
    hooks::run_all_the_same(Kind::Poststart, &container.record, Phase::Running);
    Ok(0)
}

/// Brings the pages of the snapshot into the host's page cache.
fn read_ahead(folder: &Folder) -> Result<()> {
    let failed = |e: io::Error| Failure::io(Status::Runtime, "reading the snapshot's pages", &e);
    let mut pages = folder.pages.try_clone().map(File::from).map_err(failed)?;
    io::copy(&mut pages, &mut Nowhere).map(|_| ()).map_err(failed)
}

/// `io::sink`, to which `copy` would not read.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

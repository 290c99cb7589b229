//! `template`: snapshots in sealed memory. Each is a directory `@templates/NAME` in `--root`, with a record and the socket of
//! the process that holds it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use hostsys::process::Handle;
use hostsys::seqpacket::Listener;
use hostsys::{Fork, Namespaces, fds, process};
use oci_spec::runtime::Spec;
use pool::{Sealed, TEMPLATE_SOCKET, Writable};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::checkpoint::Folder;
use crate::cli::oci::ListFormat;
use crate::cli::snapshots::{TemplateArgs, TemplateCommand};
use crate::control::client::Connection;
use crate::control::protocol::Request;
use crate::failure::{Failure, Result, Status};
use crate::oci::spec::{self, Bundle};
use crate::state::{Status as Phase, Store, check_id};

/// Where templates are kept. No container can have this name.
const FOLDER: &str = "@templates";
const RECORD: &str = "template.json";
/// How long a holder may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// `template.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Of the process that holds it.
    pub pid: i32,
    /// With this start time (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// What it was made of: a container's name or a folder.
    pub from: String,
    /// Bytes of kernel objects and of guest memory.
    pub bytes: [u64; 2],
    /// The bundle that instances are made of.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its configuration.
    pub spec: Spec,
}

/// `nanovisor template`.
///
/// # Errors
/// What the command says.
pub fn run(cx: &Context, command: &TemplateCommand) -> Result<u8> {
    match command {
        TemplateCommand::Create(args) => create(cx, args),
        TemplateCommand::List { format } => list(cx, *format),
        TemplateCommand::Inspect { name } => {
            let record = look(&cx.store, name)?;
            let text = serde_json::to_string_pretty(&record).map_err(|e| Failure::runtime(e.to_string()))?;
            crate::output::print(&format!("{text}\n"))
        }
        TemplateCommand::Delete { name } => delete(&cx.store, name),
    }
    .map(|()| 0)
}

/// A template's record.
///
/// # Errors
/// There is no such template.
pub fn look(store: &Store, name: &str) -> Result<Record> {
    check_id(name).map_err(|_| Failure::runtime(format!("template {name}: invalid name")))?;
    let path = store.path(FOLDER).join(name).join(RECORD);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::runtime(format!("template {name} does not exist")));
        }
        other => other.map_err(|e| Failure::io(Status::Runtime, &path.display().to_string(), &e))?,
    };
    serde_json::from_slice(&text).map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))
}

/// The template's memory, from its holder.
///
/// # Errors
/// The holder has ended: the template is lost.
pub fn fetch(store: &Store, name: &str) -> Result<Folder> {
    let directory = File::open(store.path(FOLDER).join(name));
    let fetched = directory.and_then(|directory| pool::fetch(directory.as_fd()));
    match fetched {
        Ok(Sealed { state, pages }) => Ok(Folder { state, pages }),
        Err(e) => {
            let text = format!("template {name} is lost ({e}): delete it, and create it again");
            Err(Failure::new(Status::Snapshot, text))
        }
    }
}

fn create(cx: &Context, args: &TemplateArgs) -> Result<()> {
    check_id(&args.name).map_err(|_| Failure::runtime(format!("template {}: invalid name", args.name)))?;
    let given = args.bundle.as_deref().map(spec::load).transpose()?;
    let doing = |e: io::Error| Failure::io(Status::Runtime, "making the template's memory", &e);
    let writable = Writable::new().map_err(doing)?;
    let (from, bundle) = match (&args.from, &args.image_path, given) {
        (Some(id), _, given) => {
            let own = save(cx, id, &writable, args)?;
            (id.clone(), given.unwrap_or(own))
        }
        (None, Some(dir), Some(bundle)) => {
            let Folder { state, pages } = Folder::open(dir)?;
            io::copy(&mut File::from(state), &mut &writable.state).map_err(doing)?;
            io::copy(&mut File::from(pages), &mut &writable.pages).map_err(doing)?;
            (dir.display().to_string(), bundle)
        }
        _ => {
            return Err(Failure::new(Status::Usage, "give --from CONTAINER-ID, or --image-path DIR with --bundle DIR"));
        }
    };
    let len = |file: &File| file.metadata().map(|m| m.len()).map_err(doing);
    let bytes = [len(&writable.state)?, len(&writable.pages)?];
    let sealed = writable.seal().map_err(doing)?;
    let dir = cx.store.subfolder(FOLDER)?.join(&args.name);
    fs::create_dir(&dir).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::runtime(format!("template {} exists", args.name)),
        _ => Failure::io(Status::Runtime, &dir.display().to_string(), &e),
    })?;
    let record = Record {
        name: args.name.clone(),
        pid: 0,
        start_time: 0,
        created: crate::logging::rfc3339(std::time::SystemTime::now()),
        from,
        bytes,
        bundle: bundle.dir,
        rootfs: bundle.root,
        spec: bundle.spec,
    };
    settle(&dir, record, sealed).inspect_err(|_| {
        let _ = fs::remove_dir_all(&dir);
    })
}

/// Saves a container into `writable`; it goes on.
fn save(cx: &Context, id: &str, writable: &Writable, args: &TemplateArgs) -> Result<Bundle> {
    // Others must be able to change a container whose program is waited for.
    let container = if args.at_ready { None } else { Some(cx.store.take(id)?) };
    let record = container.as_ref().map_or_else(|| cx.store.look(id), |container| Ok(container.record.clone()))?;
    let usable = record.status() == Phase::Running || (args.at_ready && record.status() == Phase::Created);
    if !usable {
        return Err(Failure::runtime(format!("container not running: {}", record.status().name())));
    }
    let directory = cx.store.directory(id)?;
    let mut connection = Connection::open(directory.as_fd(), &record.inside)?;
    let request = Request::Checkpoint { at_ready: args.at_ready, stop: false };
    connection.call(request, &[writable.state.as_fd(), writable.pages.as_fd()], args.timeout)?;
    Ok(Bundle { dir: record.bundle, root: record.rootfs, spec: record.spec })
}

/// Starts the holder, and writes down that it is there.
fn settle(dir: &std::path::Path, mut record: Record, sealed: Sealed) -> Result<()> {
    let doing = |e| Failure::host("starting the template's holder", e);
    let failed = |e: io::Error| Failure::io(Status::Runtime, &dir.display().to_string(), &e);
    let directory = File::open(dir).map_err(failed)?;
    let listener = Listener::bind(directory.as_fd(), TEMPLATE_SOCKET).map_err(doing)?;
    let child = match process::fork_into(Namespaces::empty()).map_err(doing)? {
        Fork::Child => become_holder(sealed, listener),
        Fork::Parent(child) => child,
    };
    record.pid = child.pid();
    record.start_time = process::start_time(record.pid).unwrap_or(0);
    let written = serde_json::to_vec(&record)
        .map_err(io::Error::from)
        .and_then(|json| fs::write(dir.join("template.new"), json))
        .and_then(|()| fs::rename(dir.join("template.new"), dir.join(RECORD)));
    written.map_err(|e| {
        child.kill();
        failed(e)
    })
}

/// The holder has nothing of the command but the template.
fn become_holder(sealed: Sealed, listener: Listener) -> ! {
    const FIRST: i32 = 3;
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    let _ = nix::sys::prctl::set_name(c"nanovisor-tmpl");
    let kept: [OwnedFd; 3] = [sealed.state, sealed.pages, listener.into_fd()];
    let moved = (|| -> hostsys::Result<[OwnedFd; 3]> {
        let null = fds::dev_null()?;
        (0..FIRST).try_for_each(|n| fds::place(null.as_fd(), n))?;
        let copies = kept.iter().map(|fd| fds::dup_above(fd.as_fd(), 16)).collect::<hostsys::Result<Vec<_>>>()?;
        for (fd, n) in copies.iter().zip(FIRST..) {
            fds::place(fd.as_fd(), n)?;
        }
        std::mem::forget((copies, null)); // closed with all the others, next
        fds::close_from(FIRST + 3)?;
        Ok([fds::inherited(FIRST)?, fds::inherited(FIRST + 1)?, fds::inherited(FIRST + 2)?])
    })();
    std::mem::forget(kept);
    match moved {
        Ok([state, pages, listener]) => pool::hold(&Sealed { state, pages }, &Listener::from_fd(listener)),
        Err(_) => process::exit_now(1),
    }
}

fn delete(store: &Store, name: &str) -> Result<()> {
    let record = look(store, name)?;
    if let Some(holder) = Handle::open(record.pid, record.start_time) {
        holder.signal(libc::SIGKILL);
        if !holder.wait(PATIENCE) {
            return Err(Failure::runtime(format!("process {} of template {name} does not end", record.pid)));
        }
    }
    let dir = store.path(FOLDER).join(name);
    fs::remove_dir_all(&dir).map_err(|e| Failure::io(Status::Runtime, &dir.display().to_string(), &e))?;
    // The last one takes the folder with it.
    let _ = fs::remove_dir(store.path(FOLDER));
    Ok(())
}

fn list(cx: &Context, format: ListFormat) -> Result<()> {
    let names = fs::read_dir(cx.store.path(FOLDER)).into_iter().flatten().flatten();
    let mut all: Vec<Record> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| look(&cx.store, &name).map_err(|e| log::warn!("{e}")).ok())
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if format == ListFormat::Json {
        let text = serde_json::to_string(&all).map_err(|e| Failure::runtime(e.to_string()))?;
        return crate::output::print(&format!("{text}\n"));
    }
    let mut text = format!("{:<20} {:<10} {:>10} {:<20} CREATED\n", "NAME", "HOLDER", "MIB", "FROM");
    for record in all {
        let alive = process::start_time(record.pid) == Some(record.start_time);
        let holder = if alive { record.pid.to_string() } else { "lost".to_owned() };
        let mib = record.bytes[1] >> 20;
        text += &format!("{:<20} {holder:<10} {mib:>10} {:<20} {}\n", record.name, record.from, record.created);
    }
    crate::output::print(&text)
}

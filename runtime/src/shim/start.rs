//! What containerd runs the program for: to have a shim started, to clean up after one, to be told what it is.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use sha2::{Digest, Sha256};

use super::container::{context, remove_by_force};
use super::events::timestamp;
use super::flags::Flags;
use super::options::Options;
use super::{NAME, RUNTIME};
use crate::failure::{Failure, Result};

/// Where containerd takes events.
pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// Where shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";
/// Where containerd finds a shim again, in the bundle.
const ADDRESS: &str = "address";
/// What containerd may say at most.
const MAX_INPUT: u64 = 10 << 20;
/// Containers with the same value of one of these share a shim.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Starts a shim in the bundle that is the working directory, or finds that of its pod; prints its address.
///
/// # Errors
/// No bundle; the socket cannot be made.
pub fn start(flags: &Flags) -> Result<()> {
    let said = read_input()?;
    let params = BootstrapParams::parse_from_bytes(&said).ok();
    // Before 2.3 containerd sends the runtime's options, which decode as this too, but for who is meant.
    let params = params.filter(|p| p.instance_id == flags.id && p.namespace == flags.namespace);
    let folder = params.as_ref().and_then(|p| p.socket_dir.clone()).filter(|dir| !dir.is_empty());
    let folder = PathBuf::from(folder.unwrap_or_else(|| SOCKETS.into()));
    let socket = folder.join(socket_name(flags, &group(&flags.id)));
    let address = format!("unix://{}", socket.display());
    if UnixStream::connect(&socket).is_err() {
        remove_socket(&address);
        spawn(flags, &socket, &address, params.as_ref())?;
    }
    fs::write(ADDRESS, &address).map_err(|e| Failure::runtime(format!("{ADDRESS}: {e}")))?;
    let reply = match params {
        None => address.into_bytes(),
        Some(_) => {
            let version = containerd_shim_protos::TASK_API_VERSION;
            let result = BootstrapResult { version, address, protocol: "ttrpc".into(), ..Default::default() };
            result.write_to_bytes().unwrap_or_default()
        }
    };
    print(&reply)
}

fn spawn(flags: &Flags, socket: &Path, address: &str, params: Option<&BootstrapParams>) -> Result<()> {
    let failed = |e: std::io::Error| Failure::runtime(format!("starting the shim ({}): {e}", socket.display()));
    if let Some(folder) = socket.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).map_err(failed)?;
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address]);
    command.args(["-socket", address]);
    if flags.debug {
        command.arg("-debug");
    }
    if let Some(params) = params.filter(|p| !p.containerd_ttrpc_address.is_empty()) {
        command.env(TTRPC_ADDRESS, &params.containerd_ttrpc_address);
    }
    // It answers when it is up: until then calls wait at the socket, which is its standard input.
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop).map_err(failed)
}

/// Cleans up after a shim that is gone, and prints what became of its container.
///
/// # Errors
/// Something does not go.
pub fn delete(flags: &Flags) -> Result<()> {
    let bundle = if flags.bundle.is_empty() { PathBuf::from(".") } else { PathBuf::from(&flags.bundle) };
    let bundle = std::path::absolute(&bundle).unwrap_or(bundle);
    let cx = context(&Options::load(&bundle), &flags.namespace)?;
    let pid = cx.store.look(&flags.id).map_or(0, |record| u32::try_from(record.pid).unwrap_or(0));
    remove_by_force(&cx, &flags.id, &bundle)?;
    let response = DeleteResponse {
        pid,
        exit_status: 128 + 9,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..Default::default()
    };
    print(&response.write_to_bytes().unwrap_or_default())
}

/// Prints what the runtime is.
///
/// # Errors
/// Standard output cannot be written.
pub fn info() -> Result<()> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let info = RuntimeInfo { name: RUNTIME.into(), version: MessageField::some(version), ..Default::default() };
    print(&info.write_to_bytes().unwrap_or_default())
}

/// Removes a socket's name.
pub fn remove_socket(address: &str) {
    let _ = fs::remove_file(address.strip_prefix("unix://").unwrap_or(address));
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::runtime(format!("standard output: {e}")))
}

fn read_input() -> Result<Vec<u8>> {
    let mut said = Vec::new();
    let read = std::io::stdin().take(MAX_INPUT).read_to_end(&mut said);
    read.map_err(|e| Failure::runtime(format!("standard input: {e}")))?;
    Ok(said)
}

/// Which containers share a shim with this one.
fn group(id: &str) -> String {
    let spec = fs::read("config.json").ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let annotation = |name: &&str| spec.as_ref()?.get("annotations")?.get(*name)?.as_str().map(str::to_owned);
    GROUPS.iter().find_map(annotation).unwrap_or_else(|| id.to_owned())
}

/// A name that no two containerds, namespaces or groups share.
fn socket_name(flags: &Flags, group: &str) -> String {
    use std::fmt::Write as _;
    let path = Path::new(&flags.address).join(&flags.namespace).join(group);
    let digest = Sha256::digest(path.to_string_lossy().as_bytes());
    digest.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

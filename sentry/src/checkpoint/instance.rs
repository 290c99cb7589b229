//! What a restored sandbox is told about itself: `/run/nanovisor/instance.json`, and a machine id of its own.

use std::sync::Arc;

use crate::checkpoint::restore::Instance;
use crate::checkpoint::{Origin, Unusable};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::vfs::Caller;
use crate::vfs::boot::write_file;

/// Where an instance finds out which one it is.
const INSTANCE: &[u8] = b"/run/nanovisor/instance.json";
/// machine-id(5).
const MACHINE_ID: &[u8] = b"/etc/machine-id";

impl Instance {
    /// Writes what the instance reads about itself. A tree that cannot be written goes without.
    ///
    /// # Errors
    /// There is no tree: corrupt state.
    pub(super) fn introduce(&self, kernel: &Arc<Kernel>, container: &Arc<Container>) -> Result<(), Unusable> {
        let mounts = container.mounts().ok_or(Unusable::Corrupt("a container without a tree"))?;
        let caller = Caller::kernel(&kernel.vfs, mounts.root().root_path());
        let put = |path: &[u8], text: String| {
            if let Err(errno) = write_file(kernel, &caller, path, 0o644, text.as_bytes()) {
                log::warn!("{} is not written: {}", String::from_utf8_lossy(path), errno.text());
            }
        };
        put(INSTANCE, self.json(kernel, container));
        if self.machine_id {
            let id = kernel.checkpoints.identity().uuid().replace('-', "");
            put(MACHINE_ID, format!("{id}\n"));
        }
        Ok(())
    }

    fn json(&self, kernel: &Kernel, container: &Container) -> String {
        let identity = kernel.checkpoints.identity();
        let origin = if identity.origin == Origin::Forked { "forked" } else { "restored" };
        let hostname = container.ns.uts.names.lock().hostname.clone();
        format!(
            "{{\"id\":\"{}\",\"origin\":\"{origin}\",\"name\":{},\"hostname\":{},\"addresses\":[],\"metadata\":{}}}\n",
            identity.uuid(),
            quoted(&container.id),
            quoted(&String::from_utf8_lossy(&hostname)),
            self.metadata.as_deref().unwrap_or("{}"),
        )
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_are_json() {
        assert_eq!(quoted("a\"b\\\n"), "\"a\\\"b\\\\\\u000a\"");
    }
}

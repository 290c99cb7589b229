//! `annotations` that this runtime reads: `dev.nanovisor.*`, and containerd's that name a pod's sandbox.

use oci_spec::runtime::Spec;

use super::refused;
use crate::cli::PlatformChoice;
use crate::failure::Result;

/// Prefix of our own.
const OURS: &str = "dev.nanovisor.";

/// What `features` lists: name and meaning.
pub const KNOWN: [(&str, &str); 7] = [
    ("dev.nanovisor.platform", "auto, kvm or ptrace"),
    ("dev.nanovisor.cpus", "guest CPUs, 1 to 256"),
    (
        "dev.nanovisor.memory",
        "most bytes of the sandbox, with K, M or G; default: linux.resources.memory.limit, or half of the host",
    ),
    ("dev.nanovisor.rofs", "auto: a read-only directory root is imaged into the cache, once for all who use it"),
    (
        "dev.nanovisor.overlay",
        "memory: what the guest writes to a directory root stays in its memory, and the directory is imaged into the cache",
    ),
    ("dev.nanovisor.debug", "true: a verbose log"),
    (super::pod::ANNOTATION, "the container whose sandbox this one is to live in"),
];

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What runs the guest.
    pub platform: PlatformChoice,
    /// Guest CPUs.
    pub cpus: Option<u16>,
    /// Bytes.
    pub memory: Option<u64>,
    /// A verbose log.
    pub debug: bool,
    /// A read-only directory root is imaged.
    rofs: bool,
    /// What the guest writes to a directory root stays in its memory.
    overlay: bool,
}

impl Wishes {
    /// Whether a directory root is imaged into the cache, instead of being served as it is.
    #[must_use]
    pub fn images_root(&self, readonly: bool) -> bool {
        self.overlay || (self.rofs && readonly)
    }
}

/// Reads our annotations.
///
/// # Errors
/// One of ours with a value that means nothing. Unknown ones of ours are warned about.
pub fn read(spec: &Spec) -> Result<Wishes> {
    let mut wishes = Wishes::default();
    let empty = std::collections::HashMap::new();
    let all = spec.annotations().as_ref().unwrap_or(&empty);
    if all.contains_key("") {
        return Err(refused("annotations", "an empty key"));
    }
    for (key, value) in all {
        let Some(name) = key.strip_prefix(OURS) else { continue };
        let bad = |want: &str| refused(&format!("annotations.{key}"), format!("`{value}` is not {want}"));
        match name {
            "platform" => {
                wishes.platform = clap::ValueEnum::from_str(value, true).map_err(|_| bad("auto, kvm or ptrace"))?;
            }
            "cpus" => {
                let cpus = value.parse().ok().filter(|n| (1..=256).contains(n));
                wishes.cpus = Some(cpus.ok_or_else(|| bad("a number from 1 to 256"))?);
            }
            "memory" => wishes.memory = Some(crate::cli::memory(value).map_err(|_| bad("a size of 16M or more"))?),
            "rofs" if value == "auto" => wishes.rofs = true,
            "overlay" if value == "memory" => wishes.overlay = true,
            "rofs" => return Err(bad("auto")),
            "overlay" => return Err(bad("memory")),
            "sandbox" if value.is_empty() => return Err(bad("a container")),
            "sandbox" => {} // see `pod`
            "debug" => wishes.debug = value.parse().map_err(|_| bad("true or false"))?,
            _ => log::warn!("config.json: annotations.{key}: not known, ignored"),
        }
    }
    Ok(wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(key: &str, value: &str) -> Result<Wishes> {
        let mut spec = Spec::default();
        spec.set_annotations(Some([(key.to_owned(), value.to_owned())].into()));
        read(&spec)
    }

    #[test]
    fn ours_are_read_and_others_left_alone() {
        assert_eq!(wishes("dev.nanovisor.cpus", "3").unwrap().cpus, Some(3));
        assert_eq!(wishes("dev.nanovisor.platform", "ptrace").unwrap().platform, PlatformChoice::Ptrace);
        assert_eq!(wishes("io.example.x", "?").unwrap(), Wishes::default());
        assert!(wishes("dev.nanovisor.memory", "tiny").unwrap_err().message.contains("dev.nanovisor.memory"));
        assert!(wishes("dev.nanovisor.platform", "xen").is_err());
    }
}

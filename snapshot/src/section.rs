//! Kinds of sections, and how typed content becomes bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// What a section holds. The order is that of the file: what a restore must check first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Kind {
    /// What the guest has seen of the processor. Always the first.
    Features = 1,
    /// Host resources that a restore must be given again, by name, and how they are recognised.
    Resources = 2,
    /// The kernel's objects.
    Kernel = 3,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Features, Kind::Resources, Kind::Kernel];

    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Features => "CPU features",
            Kind::Resources => "resources",
            Kind::Kernel => "kernel",
        }
    }

    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        Kind::ALL.into_iter().find(|k| *k as u32 == raw)
    }
}

/// The bytes of `content` for a section of this kind.
///
/// # Errors
/// [`Error::Corrupt`] for a type that the encoding does not bear, which is a defect of the caller's.
pub fn encode<T: Serialize>(kind: Kind, content: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(content).map_err(|_| Error::Corrupt(kind.name()))
}

/// What [`encode`] was given. Bytes left over are an error.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((content, [])) => Ok(content),
        _ => Err(Error::Corrupt(kind.name())),
    }
}

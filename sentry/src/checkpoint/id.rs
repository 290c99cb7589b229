//! References between saved objects.

use std::fmt;
use std::marker::PhantomData;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names an object by its place in its table. `S` is what it is saved as, so that tables are not mixed up.
pub struct Id<S> {
    index: u32,
    of: PhantomData<fn() -> S>,
}

impl<S> Id<S> {
    /// The object at `index` of its table.
    #[must_use]
    pub fn new(index: u32) -> Self {
        Id { index, of: PhantomData }
    }

    /// The place in the table.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl<S> Clone for Id<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Id<S> {}

impl<S> PartialEq for Id<S> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<S> fmt::Debug for Id<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.index)
    }
}

impl<S> Serialize for Id<S> {
    fn serialize<Z: Serializer>(&self, to: Z) -> Result<Z::Ok, Z::Error> {
        self.index.serialize(to)
    }
}

impl<'de, S> Deserialize<'de> for Id<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u32::deserialize(from).map(Id::new)
    }
}

/// Bytes that are encoded in one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<Z: Serializer>(&self, to: Z) -> Result<Z::Ok, Z::Error> {
        to.serialize_bytes(&self.0)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(BytesVisitor)
    }
}

//! Tables of objects: on the way out every object gets a place when it is first met, and is saved once; on the way
//! in every place gets an object when it is first asked for, and is built once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::error::{Refused, Unusable};
use crate::checkpoint::id::Id;
use crate::checkpoint::{Restorer, Saver};

/// A kernel object that others refer to.
pub trait Object {
    /// What it is saved as.
    type State;

    /// Its state. References to other objects become ids, by which those are saved as well.
    ///
    /// # Errors
    /// [`Refused`] where it, or something in it, cannot be saved.
    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<Self::State, Refused>;
}

/// Objects of one kind that were met so far.
pub struct Out<T: ?Sized, S> {
    places: HashMap<usize, u32>,
    objects: Vec<Arc<T>>,
    states: Vec<S>,
}

impl<T: ?Sized, S> Default for Out<T, S> {
    fn default() -> Self {
        Out { places: HashMap::new(), objects: Vec::new(), states: Vec::new() }
    }
}

fn address<T: ?Sized>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).cast::<()>() as usize
}

impl<T: ?Sized, S> Out<T, S> {
    /// The place of `object`.
    pub fn id(&mut self, object: &Arc<T>) -> Id<S> {
        let next = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        let index = *self.places.entry(address(object)).or_insert(next);
        if index == next {
            self.objects.push(object.clone());
        }
        Id::new(index)
    }

    /// Its place, where it was met.
    #[must_use]
    pub fn known(&self, object: &Arc<T>) -> Option<Id<S>> {
        self.places.get(&address(object)).map(|index| Id::new(*index))
    }

    /// The next object that was met and not saved.
    #[must_use]
    pub fn unsaved(&self) -> Option<Arc<T>> {
        self.objects.get(self.states.len()).cloned()
    }

    /// The state of the object that [`Out::unsaved`] gave.
    pub fn push(&mut self, state: S) {
        self.states.push(state);
    }

    /// All states, by place.
    #[must_use]
    pub fn finish(self) -> Vec<S> {
        self.states
    }
}

enum Slot<T: ?Sized, S> {
    Waiting(S),
    /// Being built, or failed to be.
    Empty,
    Made(Arc<T>),
}

/// Objects of one kind that are built when they are asked for.
pub struct In<T: ?Sized, S> {
    slots: Vec<Slot<T, S>>,
}

impl<T: ?Sized, S> In<T, S> {
    /// Of these states.
    #[must_use]
    pub fn new(states: Vec<S>) -> Self {
        In { slots: states.into_iter().map(Slot::Waiting).collect() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The object, where it is built.
    #[must_use]
    pub fn made(&self, id: Id<S>) -> Option<Arc<T>> {
        match self.slots.get(id.index()) {
            Some(Slot::Made(object)) => Some(object.clone()),
            _ => None,
        }
    }

    /// Takes the state of an object out that is to be built now.
    ///
    /// # Errors
    /// A place that does not exist, or an object that needs itself to be built.
    pub fn take(&mut self, id: Id<S>) -> Result<S, Unusable> {
        let slot = self.slots.get_mut(id.index()).ok_or(Unusable::Corrupt("a reference to nothing"))?;
        match std::mem::replace(slot, Slot::Empty) {
            Slot::Waiting(state) => Ok(state),
            other => {
                *slot = other;
                Err(Unusable::Corrupt("an object that contains itself"))
            }
        }
    }

    /// The object for the place whose state was taken.
    pub fn put(&mut self, id: Id<S>, object: &Arc<T>) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = Slot::Made(object.clone());
        }
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = Id<S>> + use<T, S> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(Id::new)
    }
}

/// The object at `id` of the table that `pick` names, built by `build` the first time.
///
/// # Errors
/// What `build` says.
pub fn obtain<T: ?Sized, S>(
    restorer: &mut Restorer,
    id: Id<S>,
    pick: impl Fn(&mut Restorer) -> &mut In<T, S>,
    build: impl FnOnce(S, &mut Restorer) -> Result<Arc<T>, Unusable>,
) -> Result<Arc<T>, Unusable> {
    if let Some(made) = pick(restorer).made(id) {
        return Ok(made);
    }
    let state = pick(restorer).take(id)?;
    let object = build(state, restorer)?;
    pick(restorer).put(id, &object);
    Ok(object)
}

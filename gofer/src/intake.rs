//! What arrives, in order: a request takes hold of the files it names before the next one is read.
//!
//! A `Close` behind a request can therefore never take that request's files away, however long it takes.

use std::sync::Arc;

use gofer_proto::message::{Change, NodeId, Request};

use crate::error::Result;
use crate::nodes::{Node, Nodes};

/// A request with its files.
pub struct Work {
    /// As it came.
    pub request: Request,
    /// The file it is about.
    pub node: Option<Arc<Node>>,
    /// The second one, of `Link` and `Rename`.
    pub other: Option<Arc<Node>>,
}

impl Work {
    /// Takes hold of what `request` names.
    ///
    /// # Errors
    /// `EBADF` for an id that is not held.
    pub fn new(request: Request, nodes: &Nodes) -> Result<Self> {
        let (node, other) = ids(&request);
        let held = |id: Option<NodeId>| id.map(|id| nodes.get(id)).transpose();
        Ok(Work { node: held(node)?, other: held(other)?, request })
    }

    /// Whether it may have to wait for a disk, a server or a peer, and others should not wait with it.
    pub fn may_wait(&self) -> bool {
        match &self.request {
            Request::Hello(_) | Request::Attach(_) | Request::GetAttr(_) | Request::ReadLink(_) => false,
            Request::SetAttr { change: Change { size, .. }, .. } => size.is_some(),
            _ => true,
        }
    }
}

/// The files that a request names.
fn ids(request: &Request) -> (Option<NodeId>, Option<NodeId>) {
    match request {
        Request::Hello(_) | Request::Attach(_) | Request::Close(_) => (None, None),
        Request::Walk { node, .. }
        | Request::GetAttr(node)
        | Request::SetAttr { node, .. }
        | Request::StatFs(node)
        | Request::Open { node, .. }
        | Request::ReadDir { node, .. }
        | Request::ReadLink(node)
        | Request::GetXattr { node, .. }
        | Request::SetXattr { node, .. }
        | Request::ListXattr(node)
        | Request::RemoveXattr { node, .. }
        | Request::Sync { node, .. }
        | Request::Allocate { node, .. }
        | Request::Connect { node, .. } => (Some(*node), None),
        Request::Create { dir, .. }
        | Request::CreateUnnamed { dir, .. }
        | Request::MkDir { dir, .. }
        | Request::MkNod { dir, .. }
        | Request::Symlink { dir, .. }
        | Request::Unlink { dir, .. }
        | Request::Bind { dir, .. } => (Some(*dir), None),
        Request::Link { node, dir, .. } => (Some(*node), Some(*dir)),
        Request::Rename { dir, new_dir, .. } => (Some(*dir), Some(*new_dir)),
    }
}

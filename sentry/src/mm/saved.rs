//! Address spaces as saved state: mappings, and where their private pages lie in the pages file.
//!
//! Frames of files are not saved: the next access asks the file again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{AddrRange, PAGE_SIZE};
use platform::{Prot, USER_END};
use serde::{Deserialize, Serialize};

use crate::checkpoint::pages::PageRun;
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::ipc::saved::SegmentState;
use crate::mm::layout::Layout;
use crate::mm::map::counts_as_writable;
use crate::mm::mappable::Mappable;
use crate::mm::object::saved::ObjectState;
use crate::mm::pma::{Pma, Pmas};
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::mm::{Mm, MmLimits, ProgramInfo, Vmas};
use crate::vfs::FileDescription;
use crate::vfs::saved::FileState;

/// A thing that is mapped.
#[derive(Clone, Serialize, Deserialize)]
pub enum MappableState {
    /// Memory: a file in memory, or shared anonymous memory.
    Object(Id<ObjectState>),
    /// A file of the root image, by its number there.
    Image(u64),
    /// Whatever its open file maps.
    OfFile,
    /// System V shared memory.
    Segment(Id<SegmentState>),
}

impl MappableState {
    fn restore(
        &self,
        file: Option<&Arc<FileDescription>>,
        restorer: &mut Restorer,
    ) -> Result<Arc<dyn Mappable>, Unusable> {
        Ok(match self {
            MappableState::OfFile => {
                let file = file.ok_or(Unusable::Corrupt("a mapping of no file"))?;
                file.ops.mappable(file).map_err(Unusable::step("a mapped file"))?
            }
            MappableState::Object(id) => restorer.object(*id)?,
            MappableState::Segment(id) => restorer.segment(*id)?,
            MappableState::Image(nid) => {
                restorer.image()?.inode(*nid).map_err(Unusable::step("a file of the image"))?
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
struct BackingState {
    mappable: MappableState,
    offset: u64,
    file: Option<Id<FileState>>,
}

#[derive(Serialize, Deserialize)]
struct VmaState {
    start: u64,
    len: u64,
    prot: u8,
    max: u8,
    flags: u32,
    file: Option<BackingState>,
    name: Option<Bytes>,
    pkey: u8,
}

#[derive(Serialize, Deserialize)]
struct ProgramState {
    exe: Option<Id<FileState>>,
    code: AddrRange,
    data: AddrRange,
    start_stack: u64,
    args: AddrRange,
    env: AddrRange,
    auxv: Vec<u64>,
}

/// [`Mm`].
#[derive(Serialize, Deserialize)]
pub struct MmState {
    vmas: Vec<VmaState>,
    layout: (u64, u64),
    brk: AddrRange,
    default_flags: u32,
    pkeys: u16,
    program: ProgramState,
    limits: [u64; 4],
    oom: bool,
    pages: Vec<PageRun>,
}

impl Object for Mm {
    type State = MmState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<MmState, Refused> {
        // The platform's space is a cache; numbers of address spaces are not seen by guests.
        let Mm { id: _, this: _, space: _, memory: _, vmas, pmas, limits, oom, given_up: _, _cost: _ } = &**self;
        let vmas = vmas.read();
        let Vmas { map, layout: Layout { mmap_top, stack_top }, holes: _, brk, default_flags, pkeys, program } = &*vmas;
        let mut states = Vec::with_capacity(map.len());
        for (range, vma) in map.iter() {
            states.push(vma.save(range, saver)?);
        }
        // Hints of where stores happened, and free places, are found again.
        let pmas = pmas.lock();
        let Pmas { map: pages, extents: _, invalidations: _, hot: _, last_copy: _ } = &*pmas;
        let mut runs = Vec::new();
        for (range, Pma { frame, owned, cow: _, writable: _ }) in pages.iter().filter(|(_, p)| p.owned) {
            debug_assert!(owned);
            // A missing page is zero only where no file stands behind it.
            let sparse = map.overlapping(range).all(|(_, vma)| vma.file.is_none());
            saver.pages.place(range.start, frame, range.len(), sparse, &mut runs);
        }
        let MmLimits { address_space, data, stack, memlock } = *limits.lock();
        Ok(MmState {
            vmas: states,
            layout: (*mmap_top, *stack_top),
            brk: *brk,
            default_flags: default_flags.bits(),
            pkeys: *pkeys,
            program: program.save(saver),
            limits: [address_space, data, stack, memlock],
            oom: oom.load(Ordering::Relaxed),
            pages: runs,
        })
    }
}

impl Vma {
    fn save(&self, range: AddrRange, saver: &mut Saver) -> Result<VmaState, Refused> {
        let Vma { prot, max, flags, file, name, pkey } = self;
        let file = match file {
            None => None,
            Some(FileBacking { mappable, offset, file }) => {
                let mappable = mappable.clone().save(saver)?;
                if file.is_none() && matches!(mappable, MappableState::OfFile) {
                    return Err(Refused::new("a mapping of a host directory's file that is not open"));
                }
                let file = file.as_ref().map(|file| saver.files.id(file));
                Some(BackingState { mappable, offset: *offset, file })
            }
        };
        let name = name.as_ref().map(|name| Bytes(name.to_vec()));
        let (prot, max, flags) = (prot.bits(), max.bits(), flags.bits());
        Ok(VmaState { start: range.start, len: range.len(), prot, max, flags, file, name, pkey: *pkey })
    }
}

impl ProgramInfo {
    fn save(&self, saver: &mut Saver) -> ProgramState {
        let ProgramInfo { exe, code, data, start_stack, args, env, auxv } = self;
        ProgramState {
            exe: exe.as_ref().map(|file| saver.files.id(file)),
            code: *code,
            data: *data,
            start_stack: *start_stack,
            args: *args,
            env: *env,
            auxv: auxv.clone(),
        }
    }
}

impl ProgramState {
    fn restore(self, restorer: &mut Restorer) -> Result<ProgramInfo, Unusable> {
        Ok(ProgramInfo {
            exe: self.exe.map(|id| restorer.file(id)).transpose()?,
            code: self.code,
            data: self.data,
            start_stack: self.start_stack,
            args: self.args,
            env: self.env,
            auxv: self.auxv,
        })
    }
}

impl VmaState {
    fn restore(self, restorer: &mut Restorer) -> Result<(AddrRange, Vma), Unusable> {
        let bad = || Unusable::Corrupt("a mapping");
        let end = self.start.checked_add(self.len).filter(|end| *end <= USER_END).ok_or_else(bad)?;
        if self.len == 0 || !(self.start | self.len).is_multiple_of(PAGE_SIZE) || self.pkey > 15 {
            return Err(bad());
        }
        let file = match self.file {
            None => None,
            Some(backing) if backing.offset.is_multiple_of(PAGE_SIZE) => {
                let file = backing.file.map(|id| restorer.file(id)).transpose()?;
                let mappable = backing.mappable.restore(file.as_ref(), restorer)?;
                Some(FileBacking { mappable, offset: backing.offset, file })
            }
            Some(_) => return Err(bad()),
        };
        let vma = Vma {
            prot: Prot::from_bits(self.prot).ok_or_else(bad)?,
            max: Prot::from_bits(self.max).ok_or_else(bad)?,
            flags: VmaFlags::from_bits(self.flags).ok_or_else(bad)?,
            file,
            name: self.name.map(|name| name.0.into()),
            pkey: self.pkey,
        };
        Ok((AddrRange::new(self.start, end), vma))
    }
}

impl MmState {
    /// The address space. Its pages are those of the snapshot until they are stored to.
    ///
    /// # Errors
    /// Corrupt state; no room for an address space.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Mm>, Unusable> {
        let mm = Mm::new(&restorer.kernel).map_err(Unusable::step("an address space"))?;
        let mut vmas = Vmas {
            layout: Layout { mmap_top: self.layout.0, stack_top: self.layout.1 },
            brk: self.brk,
            default_flags: VmaFlags::from_bits(self.default_flags).ok_or(Unusable::Corrupt("mapping flags"))?,
            pkeys: self.pkeys | 1,
            program: self.program.restore(restorer)?,
            ..Vmas::default()
        };
        for state in self.vmas {
            let (range, vma) = state.restore(restorer)?;
            if vmas.map.overlapping(range).next().is_some() {
                return Err(Unusable::Corrupt("mappings that overlap"));
            }
            if let Some(file) = &vma.file {
                let announced = file.mappable.add_mapping(&mm.this, range, file.offset, counts_as_writable(&vma));
                announced.map_err(Unusable::step("a mapping"))?;
            }
            vmas.map.insert(range, vma);
        }
        {
            let mut pmas = mm.pmas.lock();
            for run in &self.pages {
                let (range, frame) = run.frame(&restorer.frames)?;
                if range.end > USER_END || !vmas.map.gaps(range).is_empty() {
                    return Err(Unusable::Corrupt("pages outside of mappings"));
                }
                pmas.map.insert(range, Pma::saved(frame));
            }
        }
        *mm.vmas.write() = vmas;
        let [address_space, data, stack, memlock] = self.limits;
        mm.set_limits(MmLimits { address_space, data, stack, memlock });
        mm.oom.store(self.oom, Ordering::Relaxed);
        Ok(mm)
    }
}

/// Numbers of memory objects that a restored kernel gives out start above those in the snapshot.
pub(in crate::mm) fn raise(counter: &AtomicU64, above: u64) {
    counter.fetch_max(above.saturating_add(1), Ordering::Relaxed);
}

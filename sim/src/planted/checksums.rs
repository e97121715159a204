//! A recovery that does not look at checksums, made by putting right those of the last group before it is read.
//!
//! Written from the format as the journal's module documents it: this is the one place outside of it that
//! knows where a checksum stands.

use std::path::Path;
use std::time::Duration;

use broker::parts::Parts;
use bytes::Bytes;
use io_backend::disk::DiskResult;
use io_backend::{Backend, Deadline, Disk, File, OpenHow};

use crate::world::SimBackend;

const PAGE: usize = 4096;
const GROUP_HEADER: usize = 64;
const ENTRY_HEADER: usize = 60;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    parts.journal = Box::new(move |context| {
        Box::pin(async move {
            // What cannot be read now cannot be read by the real recovery either.
            let _ = believe_all(&context.backend, &context.directory).await;
            inner(context).await
        })
    });
}

async fn believe_all(backend: &SimBackend, directory: &Path) -> DiskResult<()> {
    let deadline = Deadline::after(backend, Duration::from_secs(60));
    let disk = backend.disk();
    for entry in disk.read_dir(directory, deadline).await? {
        if entry.is_dir {
            continue;
        }
        let file = disk.open(&directory.join(&entry.name), OpenHow::Existing, deadline).await?;
        let length = usize::try_from(entry.len).unwrap_or(usize::MAX);
        let mut bytes = file.read_at(0, length, deadline).await?.to_vec();
        if let Some((from, to)) = put_right(&mut bytes) {
            file.write_at(from as u64, Bytes::copy_from_slice(&bytes[from..to]), deadline).await?;
        }
    }
    Ok(())
}

/// Makes the checksums of the group behind the last sound one right; returns what was changed.
fn put_right(bytes: &mut [u8]) -> Option<(usize, usize)> {
    let generation = bytes.get(24..32)?.to_vec();
    let mut at = PAGE;
    let mut last_number = None;
    loop {
        let head = bytes.get(at..at + GROUP_HEADER)?;
        let number = u64_at(head, 8);
        let follows = last_number.is_none_or(|last| number == last + 1);
        if &head[..4] != b"CKGR" || u64_at(head, 40) != at as u64 || !follows {
            return None;
        }
        let body = u32_at(head, 56) as usize;
        let end = at + (GROUP_HEADER + body).div_ceil(PAGE) * PAGE;
        if end > bytes.len() {
            return None;
        }
        let group = &mut bytes[at..end];
        if fix_group(&generation, &mut group[..GROUP_HEADER + body]) {
            return Some((at, end));
        }
        last_number = Some(number);
        at = end;
    }
}

/// True if a checksum was wrong.
fn fix_group(generation: &[u8], group: &mut [u8]) -> bool {
    let mut changed = fix(generation, &mut group[..GROUP_HEADER]);
    let mut at = GROUP_HEADER;
    while let Some(head) = group.get(at..at + ENTRY_HEADER) {
        let next = at + ENTRY_HEADER + u32_at(head, 0) as usize;
        if next > group.len() {
            break;
        }
        changed |= fix(generation, &mut group[at..next]);
        at = next;
    }
    changed
}

fn fix(generation: &[u8], framed: &mut [u8]) -> bool {
    let crc = crc32c::crc32c(generation);
    let crc = crc32c::crc32c_append(crc, &framed[..4]);
    let crc = crc32c::crc32c_append(crc, &framed[8..]);
    let wrong = u32_at(framed, 4) != crc;
    framed[4..8].copy_from_slice(&crc.to_le_bytes());
    wrong
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

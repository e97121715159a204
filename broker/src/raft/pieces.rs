//! A snapshot in the journal: in pieces, since it may be larger than the journal takes at once.
//!
//! A piece is version, flags, index, term, number and count of pieces, then bytes of the content: the length of the
//! group's configuration as of the index, that configuration, the image. They are one content because they count
//! together: a torn snapshot leaves the one before it, with its own configuration. Version 1 had neither flags
//! nor configuration; that of its group stands in an entry of its own and never changed.
//!
//! The flag says where the snapshot comes from. One taken here stands for entries of the log before it, which goes
//! on behind it. One from a leader takes the place of the whole log: what else stood there, beyond its
//! index too, may be what other leaders wrote and nobody committed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{ConfState, Snapshot};

use super::entries::{encode, journal_entry, parse, snapshot};
use crate::formats::RAFT_SNAPSHOT;
use crate::journal::{EntryKind, JournalEntry};

const WITHOUT_CONFIGURATION: u8 = 1;
const REPLACES_THE_LOG: u8 = 1;
const NUMBERS_BYTES: usize = 8 + 8 + 4 + 4;

/// A snapshot that is whole, as it was found in the journal.
pub(super) struct Found {
    pub(super) snapshot: Snapshot,
    /// Its configuration stands in an entry of its own.
    pub(super) without_configuration: bool,
    pub(super) replaces_the_log: bool,
}

/// A snapshot as journal entries, each with at most `piece_bytes` of it.
pub(super) fn snapshot_entries(
    snapshot: &Snapshot,
    piece_bytes: usize,
    replaces_the_log: bool,
) -> Vec<JournalEntry> {
    let metadata = snapshot.get_metadata();
    let conf = encode(metadata.get_conf_state());
    let mut content = BytesMut::with_capacity(4 + conf.len() + snapshot.data.len());
    content.put_u32(conf.len() as u32);
    content.put_slice(&conf);
    content.put_slice(&snapshot.data);
    let pieces: Vec<&[u8]> = content.chunks(piece_bytes).collect();
    let count = pieces.len() as u32;
    let piece = |(number, bytes): (u32, &[u8])| {
        let mut payload = BytesMut::with_capacity(2 + NUMBERS_BYTES + bytes.len());
        payload.put_u8(RAFT_SNAPSHOT);
        payload.put_u8(if replaces_the_log { REPLACES_THE_LOG } else { 0 });
        payload.put_u64(metadata.index);
        payload.put_u64(metadata.term);
        payload.put_u32(number);
        payload.put_u32(count);
        payload.put_slice(bytes);
        journal_entry(EntryKind::RaftSnapshot, metadata.index, metadata.term, payload.freeze())
    };
    (0..).zip(pieces).map(piece).collect()
}

/// Puts snapshots together from their pieces.
#[derive(Default)]
pub(super) struct Pieces {
    /// Of one snapshot, from its first on.
    gathered: Vec<Piece>,
}

#[derive(Clone)]
struct Piece {
    version: u8,
    flags: u8,
    index: u64,
    term: u64,
    number: u32,
    count: u32,
    bytes: Bytes,
}

impl Pieces {
    /// Takes the next piece in the journal; a snapshot when it was the last of one. The first pieces may stand
    /// in a file that has been released, or the last in a torn group: such a snapshot does not count.
    pub(super) fn take(&mut self, payload: &Bytes) -> Result<Option<Found>, String> {
        let piece = Piece::decode(payload)?;
        if piece.number == 0 {
            self.gathered.clear();
        }
        let identity = |piece: &Piece| (piece.version, piece.flags, piece.index, piece.term, piece.count);
        let continues = self.gathered.first().is_none_or(|first| identity(first) == identity(&piece));
        if piece.number as usize != self.gathered.len() || !continues {
            self.gathered.clear();
            return Ok(None);
        }
        self.gathered.push(piece.clone());
        if piece.number + 1 < piece.count {
            return Ok(None);
        }
        let mut content = BytesMut::new();
        self.gathered.drain(..).for_each(|piece| content.put(piece.bytes));
        let mut content = content.freeze();
        let without_configuration = piece.version == WITHOUT_CONFIGURATION;
        let conf = match without_configuration {
            true => ConfState::default(),
            false => parse(&configuration(&mut content)?)?,
        };
        let snapshot = snapshot(piece.index, piece.term, conf, content);
        let replaces_the_log = piece.flags & REPLACES_THE_LOG != 0;
        Ok(Some(Found { snapshot, without_configuration, replaces_the_log }))
    }
}

/// Takes the configuration off the front of a content.
fn configuration(content: &mut Bytes) -> Result<Bytes, String> {
    let bytes = content.try_get_u32().map_err(|_| "a snapshot without a configuration".to_owned())?;
    if bytes as usize > content.len() {
        return Err(format!("a snapshot with a configuration of {bytes} bytes in {}", content.len()));
    }
    Ok(content.split_to(bytes as usize))
}

impl Piece {
    fn decode(payload: &Bytes) -> Result<Piece, String> {
        let mut rest = payload.clone();
        let short = |_| format!("a piece of a snapshot of only {} bytes", payload.len());
        let version = rest.try_get_u8().map_err(short)?;
        if version == 0 || version > RAFT_SNAPSHOT {
            return Err(format!(
                "a snapshot of version {version}, this binary reads version {RAFT_SNAPSHOT}: start a newer chronik"
            ));
        }
        let flags = if version == WITHOUT_CONFIGURATION { 0 } else { rest.try_get_u8().map_err(short)? };
        if rest.len() < NUMBERS_BYTES {
            return Err(format!("a piece of a snapshot of only {} bytes", payload.len()));
        }
        Ok(Piece {
            version,
            flags,
            index: rest.get_u64(),
            term: rest.get_u64(),
            number: rest.get_u32(),
            count: rest.get_u32(),
            bytes: rest,
        })
    }
}

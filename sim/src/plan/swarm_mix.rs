//! What a seed tends to: a random subset of the fault kinds, with random weights.
//!
//! If every seed drew from all kinds alike, each run would be the same average weather, and the bug that needs
//! three power losses in a row and nothing else would never meet them.

use crate::fault::FaultKind;
use crate::scenario::Swarm;
use crate::streams::Stream;

pub(super) struct SwarmMix {
    weights: Vec<(FaultKind, u64)>,
}

impl SwarmMix {
    pub(super) fn draw(swarm: &Swarm, nodes: u32, stream: &mut Stream) -> SwarmMix {
        let mut groups: Vec<(u64, Vec<FaultKind>)> = Vec::new();
        for (family, weight) in &swarm.families {
            let members: Vec<FaultKind> = FaultKind::ALL
                .into_iter()
                .filter(|kind| kind.family() == *family && drawable(*kind, nodes, swarm.corrupting))
                .collect();
            groups.push((u64::from(*weight), members));
        }
        for (kind, weight) in &swarm.kinds {
            groups.push((u64::from(*weight), vec![*kind]));
        }
        groups.retain(|(weight, members)| *weight > 0 && !members.is_empty());
        let certain = stream.below(groups.len() as u64) as usize;
        let mut weights = Vec::new();
        for (index, (weight, members)) in groups.into_iter().enumerate() {
            let taken = stream.coin() || index == certain;
            let weight = weight * stream.between(1, 8);
            for kind in members {
                // A share of the family's weight; now and then a kind is left out altogether.
                let share = stream.below(4);
                if taken && share > 0 {
                    weights.push((kind, weight * share));
                }
            }
        }
        SwarmMix { weights }
    }

    pub(super) fn kind(&self, stream: &mut Stream) -> Option<FaultKind> {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = stream.below(total);
        for (kind, weight) in &self.weights {
            if drawn < *weight {
                return Some(*kind);
            }
            drawn -= weight;
        }
        None
    }
}

/// Whether a system of this size can be asked to survive it.
fn drawable(kind: FaultKind, nodes: u32, corrupting: bool) -> bool {
    match kind {
        // Of a single node's data nothing would be left to judge.
        FaultKind::Wipe => nodes > 1,
        kind if corrupting && kind.destroys_data() => true,
        // A failed sync loses only what was never acknowledged: one node has to survive that.
        FaultKind::SyncFails => true,
        // Ends nobody by itself; it is drawn together with what kills.
        FaultKind::Unkillable => nodes > 1,
        // What damages a file in silence: where that shows, on one node or on several, is for whoever judges damage.
        kind => !kind.destroys_data(),
    }
}

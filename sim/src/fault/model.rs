//! The serialisable form of a fault and of a plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::duration::{Extent, Offset, Span};
use super::select::{Link, NodeRef, Operation, PathSelector};
use super::trigger::When;

/// All faults of one run, as a seed drew them or a scenario lists them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

impl FaultPlan {
    /// Equal plans have equal hashes, on every machine.
    pub fn hash(&self) -> u64 {
        let text = serde_json::to_string(self).unwrap_or_default();
        twox_hash::XxHash3_64::oneshot(text.as_bytes())
    }
}

/// One fault. Which selectors and parameters apply depends on its kind: see [`FaultKind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    /// The machine it happens on. For network faults: short for a `link` of this machine with all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
    /// Disk: which files; any when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathSelector>,
    /// Disk: which operation; the one that the kind implies when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Network: between whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Task: role or `role[instance]`, `*` for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Lock faults: the lock's name, `*` for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Channel faults: the channel's name, `*` for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When it begins, from the start of the run.
    #[serde(default)]
    pub at: Span,
    /// The state that it waits for from `at` on, to begin in it; without one it begins at `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Which occurrence of that state; the first when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// How long it lasts. For `kill`, `power-loss` and `wipe`: how long the machine is down.
    #[serde(default = "forever", rename = "for")]
    pub for_: Extent,
    /// Delay faults: how long each operation, message or acquisition takes more. Flapping: how long each
    /// interruption, and each time without one, lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Clock faults: how far the clock is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Offset>,
    /// Clock drift: how much faster (or, negative, slower) than real time, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_ppm: Option<i64>,
    /// Which share of operations or messages is hit, in thousandths; all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mille: Option<u32>,
    /// At most so many hits; without it as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Slow link: bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
}

fn forever() -> Extent {
    Extent::Forever
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Operations begun in the window complete only when it ends (`forever`: never, and nothing can
    /// cancel them), also those of processes started in it. `count` limits how many hang; the rest pass. With
    /// `count` and `forever` those that hang do so to the end of their process.
    DiskStall,
    /// Each operation takes `delay` more.
    DiskSlow,
    /// Operations fail with an I/O error.
    DiskError,
    /// Syncs fail, and the pages they should have covered are lost.
    SyncFails,
    /// A write reports success; only some of its sectors are written.
    TornWrite,
    /// A write reports success and is not done.
    LostWrite,
    /// A write reports success and lands elsewhere in the file.
    MisdirectedWrite,
    /// At `at`, one bit of a durable file flips; none of what was last made durable of a journal, which would read like a
    /// write that never ended.
    BitRot,
    /// Writes and creates fail for want of space; reads go on.
    DiskFull,

    /// Nothing passes between the machines of `link`; what is sent is delivered after it is healed.
    Partition,
    /// Nothing passes from the first to the second machine; the other way works.
    OneWay,
    /// Segments are lost and sent again: each one hit arrives `delay` (200 ms when missing) later.
    Loss,
    /// Each segment takes `delay` more.
    Delay,
    /// At most `bytes_per_s`.
    SlowLink,
    /// At `at`, established connections break with a reset.
    Reset,
    /// At `at`, established connections stop carrying anything, for ever, and tell nobody; new ones work.
    Silence,
    /// Connects hang instead of being answered.
    ConnectHangs,
    /// A partition that comes and goes: for `delay` nothing passes, for `delay` everything does.
    Flapping,

    /// `kill -9`: what was written is kept. Started again after `for`.
    Kill,
    /// What was not synced may be lost or torn. Started again after `for`.
    PowerLoss,
    /// A polite stop; started again when it has ended.
    Restart,
    /// The process is not scheduled (SIGSTOP, a paused VM): nothing runs and its connections live on,
    /// its clocks age.
    Pause,
    /// Killed and its disk emptied. Started again after `for`.
    Wipe,
    /// Killing or exiting takes effect only when the window ends: until then the process runs nothing,
    /// yet its listeners and connections stay open (a thread in uninterruptible sleep).
    Unkillable,

    /// The wall clock is off `by` in the window.
    ClockSkew,
    /// At `at` the wall clock jumps `by` for good; a jump forward also moves the monotonic clock if
    /// `task` is absent and `by` is positive, as after a suspend.
    ClockJump,
    /// Both clocks run faster or slower by `drift_ppm` in the window.
    ClockDrift,

    /// The named task is not polled in the window.
    TaskStopped,
    /// The named task blocks its thread in the window: all tasks of its simulated thread stop.
    ThreadBlocked,

    /// Acquiring the lock takes `delay` more, as if other threads held it.
    LockDelay,
    /// Handing a message to the channel takes `delay` more.
    ChannelDelay,
    /// The channel takes no message.
    ChannelFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Disk,
    Network,
    Process,
    Clock,
    Task,
    SyncPoint,
}

impl FaultKind {
    pub const ALL: [FaultKind; 32] = [
        FaultKind::DiskStall,
        FaultKind::DiskSlow,
        FaultKind::DiskError,
        FaultKind::SyncFails,
        FaultKind::TornWrite,
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::BitRot,
        FaultKind::DiskFull,
        FaultKind::Partition,
        FaultKind::OneWay,
        FaultKind::Loss,
        FaultKind::Delay,
        FaultKind::SlowLink,
        FaultKind::Reset,
        FaultKind::Silence,
        FaultKind::ConnectHangs,
        FaultKind::Flapping,
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::Restart,
        FaultKind::Pause,
        FaultKind::Wipe,
        FaultKind::Unkillable,
        FaultKind::ClockSkew,
        FaultKind::ClockJump,
        FaultKind::ClockDrift,
        FaultKind::TaskStopped,
        FaultKind::ThreadBlocked,
        FaultKind::LockDelay,
        FaultKind::ChannelDelay,
        FaultKind::ChannelFull,
    ];

    pub fn family(self) -> Family {
        use FaultKind::*;
        match self {
            DiskStall | DiskSlow | DiskError | SyncFails | TornWrite | LostWrite | MisdirectedWrite
            | BitRot | DiskFull => Family::Disk,
            Partition | OneWay | Loss | Delay | SlowLink | Reset | Silence | ConnectHangs | Flapping => {
                Family::Network
            }
            Kill | PowerLoss | Restart | Pause | Wipe | Unkillable => Family::Process,
            ClockSkew | ClockJump | ClockDrift => Family::Clock,
            TaskStopped | ThreadBlocked => Family::Task,
            LockDelay | ChannelDelay | ChannelFull => Family::SyncPoint,
        }
    }

    /// Happens once, at `at`; the others last.
    pub fn is_moment(self) -> bool {
        use FaultKind::*;
        matches!(self, BitRot | Reset | Silence | Kill | PowerLoss | Restart | Wipe | ClockJump)
    }

    /// Whether it may destroy acknowledged data on the machine it hits.
    pub fn destroys_data(self) -> bool {
        use FaultKind::*;
        matches!(self, SyncFails | TornWrite | LostWrite | MisdirectedWrite | BitRot | Wipe)
    }

    /// The name used in scenarios.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A fault that cannot be carried out as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault {kind}: {what}")]
pub struct FaultError {
    pub kind: FaultKind,
    pub what: String,
}

impl Fault {
    /// A fault with no selector and no parameter, from the start, forever.
    pub fn new(kind: FaultKind) -> Fault {
        Fault {
            kind,
            node: None,
            path: None,
            operation: None,
            link: None,
            task: None,
            lock: None,
            channel: None,
            at: Span::ZERO,
            when: None,
            nth: None,
            for_: Extent::Forever,
            delay: None,
            by: None,
            drift_ppm: None,
            per_mille: None,
            count: None,
            bytes_per_s: None,
        }
    }

    pub fn on(mut self, node: impl Into<NodeRef>) -> Fault {
        self.node = Some(node.into());
        self
    }

    pub fn window(mut self, at: std::time::Duration, length: std::time::Duration) -> Fault {
        self.at = Span(at);
        self.for_ = Extent::For(length);
        self
    }

    /// Says what is missing or does not belong.
    pub fn check(&self) -> Result<(), FaultError> {
        let wrong = |what: String| Err(FaultError { kind: self.kind, what });
        let family = self.kind.family();
        if self.node.is_none() && !(family == Family::Network && self.link.is_some()) {
            let or_link = if family == Family::Network { " or a link" } else { "" };
            return wrong(format!("needs a node{or_link}"));
        }
        if self.node.is_some() && self.link.is_some() {
            return wrong("has a node and a link; give one".to_owned());
        }
        let misplaced = [
            (self.path.is_some() && family != Family::Disk, "path"),
            (self.operation.is_some() && family != Family::Disk, "operation"),
            (self.link.is_some() && family != Family::Network, "link"),
            (self.task.is_some() && family != Family::Task, "task"),
            (self.lock.is_some() && self.kind != FaultKind::LockDelay, "lock"),
            (
                self.channel.is_some()
                    && !matches!(self.kind, FaultKind::ChannelDelay | FaultKind::ChannelFull),
                "channel",
            ),
            (self.by.is_some() && family != Family::Clock, "by"),
            (self.drift_ppm.is_some() && self.kind != FaultKind::ClockDrift, "drift_ppm"),
            (self.bytes_per_s.is_some() && self.kind != FaultKind::SlowLink, "bytes_per_s"),
        ];
        if let Some((_, name)) = misplaced.iter().find(|(misplaced, _)| *misplaced) {
            return wrong(format!("takes no {name}"));
        }
        if self.when.is_some() && self.node.is_none() {
            return wrong("needs a node whose state `when` is".to_owned());
        }
        match (self.when, self.nth) {
            (None, Some(_)) => return wrong("has nth and no when".to_owned()),
            (Some(When::Write(_)), Some(_)) => {
                return wrong("has nth beside write:N, which says which one".to_owned());
            }
            (Some(_), Some(0)) => return wrong("nth is 0; the first is 1".to_owned()),
            _ => {}
        }
        use FaultKind::*;
        let missing = match self.kind {
            DiskSlow | Delay | Flapping | LockDelay | ChannelDelay if self.delay.is_none() => Some("delay"),
            SlowLink if self.bytes_per_s.is_none() => Some("bytes_per_s"),
            ClockSkew | ClockJump if self.by.is_none() => Some("by"),
            ClockDrift if self.drift_ppm.is_none() => Some("drift_ppm"),
            TaskStopped | ThreadBlocked if self.task.is_none() => Some("task"),
            LockDelay if self.lock.is_none() => Some("lock"),
            ChannelDelay | ChannelFull if self.channel.is_none() => Some("channel"),
            _ => None,
        };
        if let Some(missing) = missing {
            return wrong(format!("needs {missing}"));
        }
        if self.drift_ppm.is_some_and(|ppm| ppm.abs() > 500_000) {
            return wrong("drift_ppm is beyond 500000".to_owned());
        }
        if self.bytes_per_s == Some(0) {
            return wrong("bytes_per_s is 0; that is a partition".to_owned());
        }
        if self.kind == Flapping && self.delay.is_some_and(|delay| delay.0.is_zero()) {
            return wrong("delay is 0; that is no time to come and go".to_owned());
        }
        if self.per_mille.is_some_and(|share| share == 0 || share > 1000) {
            return wrong("per_mille is outside 1 to 1000".to_owned());
        }
        Ok(())
    }

    /// Some operations that never complete, beyond the healing of everything else: nothing may depend on them. They
    /// spare a process that starts, which depends on all of its files.
    pub fn outlives_the_healing(&self) -> bool {
        self.kind == FaultKind::DiskStall && self.for_.is_forever() && self.count.is_some()
    }

    /// Whether it is about a node that a cluster of so many does not have.
    pub fn is_beyond(&self, nodes: u32) -> bool {
        matches!(self.node, Some(NodeRef::Number(number)) if number == 0 || number > nodes)
    }

    /// The links it touches: its own, or all of its machine.
    pub fn links(&self) -> Link {
        match (&self.link, &self.node) {
            (Some(link), _) => link.clone(),
            (None, Some(node)) => Link::all_of(node.machine()),
            (None, None) => Link::all_of("*"),
        }
    }
}

impl fmt::Display for Fault {
    /// One line for people: `disk-stall node1 journal sync at 10s for 3h 40m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(node) = &self.node {
            write!(f, " {node}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " {path}")?;
        }
        if let Some(operation) = self.operation {
            write!(f, " {}", operation.name())?;
        }
        if let Some(link) = &self.link {
            write!(f, " {link}")?;
        }
        for name in [&self.task, &self.lock, &self.channel].into_iter().flatten() {
            write!(f, " {name}")?;
        }
        if let Some(delay) = self.delay {
            write!(f, " by {delay}")?;
        }
        if let Some(by) = self.by {
            write!(f, " by {by}")?;
        }
        if let Some(ppm) = self.drift_ppm {
            write!(f, " by {ppm} ppm")?;
        }
        if let Some(rate) = self.bytes_per_s {
            write!(f, " at {rate} B/s")?;
        }
        if let Some(share) = self.per_mille {
            write!(f, " hitting {share} per mille")?;
        }
        if let Some(count) = self.count {
            write!(f, " {count} times")?;
        }
        match self.when {
            None => write!(f, " at {}", self.at)?,
            Some(when) => {
                write!(f, " in {when}")?;
                if let Some(nth) = self.nth {
                    write!(f, " no. {nth}")?;
                }
                write!(f, " after {}", self.at)?;
            }
        }
        match (self.kind.is_moment(), self.for_) {
            (true, Extent::Forever) => Ok(()),
            (_, length) => write!(f, " for {length}"),
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;

//! A machine's clocks as functions of the world's time: skewed, jumped, running fast or slow.
//!
//! The monotonic clock never goes back. Without clock faults it equals the world's time, so that moments in
//! the registry and in the trace read the same.

use crate::fault::Offset;

/// 2026-01-01T00:00:00Z: where wall clocks start, in milliseconds.
const WALL_START_MS: i64 = 1_767_225_600_000;

const MILLION: i128 = 1_000_000;

/// All in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockView {
    world_base: u64,
    local_base: u64,
    drift_ppm: i64,
    wall_offset: i64,
    /// How it ran before its last change: world's time, own time and drift at the beginning of each stretch.
    past: Vec<(u64, u64, i64)>,
}

impl ClockView {
    pub fn new() -> ClockView {
        ClockView { world_base: 0, local_base: 0, drift_ppm: 0, wall_offset: 0, past: Vec::new() }
    }

    /// The monotonic clock at this time of the world.
    pub fn local(&self, world: u64) -> u64 {
        let passed = world.saturating_sub(self.world_base);
        if self.drift_ppm == 0 {
            // The usual case, and asked several times in every poll: no wide division.
            return self.local_base.saturating_add(passed);
        }
        let passed = i128::from(passed);
        let ran = passed * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        self.local_base.saturating_add(u64::try_from(ran).unwrap_or(u64::MAX))
    }

    /// The first time of the world at which the monotonic clock shows `local` or more.
    pub fn world(&self, local: u64) -> u64 {
        if local <= self.local_base {
            return self.world_base;
        }
        if self.drift_ppm == 0 {
            return self.world_base.saturating_add(local - self.local_base);
        }
        let wanted = i128::from(local - self.local_base);
        let rate = MILLION + i128::from(self.drift_ppm);
        let passed = (wanted * MILLION + rate - 1) / rate;
        self.world_base.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// When in the world's time the monotonic clock showed `local`, also before its last change. A moment that a
    /// jump left out is that of the jump.
    pub fn when(&self, local: u64) -> u64 {
        let stretch = self.past.iter().rposition(|(_, base, _)| *base <= local);
        let Some(next) = stretch.filter(|_| local < self.local_base) else {
            return self.world(local);
        };
        let (world_base, local_base, drift_ppm) = self.past[next];
        let then = ClockView { world_base, local_base, drift_ppm, ..ClockView::new() };
        let ended = self.past.get(next + 1).map_or(self.world_base, |(world, _, _)| *world);
        then.world(local).min(ended)
    }

    pub fn wall_ms(&self, world: u64) -> i64 {
        let shown = i128::from(self.local(world)) + i128::from(self.wall_offset);
        WALL_START_MS + i64::try_from(shown.div_euclid(MILLION)).unwrap_or(i64::MAX)
    }

    pub fn skew(&mut self, by: Offset) {
        self.wall_offset = self.wall_offset.saturating_add(by.nanos);
    }

    pub fn unskew(&mut self, by: Offset) {
        self.wall_offset = self.wall_offset.saturating_sub(by.nanos);
    }

    /// The wall clock jumps; forward, the monotonic clock comes along, as after a suspend.
    pub fn jump(&mut self, world: u64, by: Offset) {
        if by.nanos < 0 {
            return self.skew(by);
        }
        self.rebase(world);
        self.local_base = self.local_base.saturating_add(by.nanos.unsigned_abs());
    }

    pub fn drift(&mut self, world: u64, ppm: i64) {
        self.rebase(world);
        self.drift_ppm = ppm;
    }

    fn rebase(&mut self, world: u64) {
        self.past.push((self.world_base, self.local_base, self.drift_ppm));
        self.local_base = self.local(world);
        self.world_base = world;
    }
}

impl Default for ClockView {
    fn default() -> ClockView {
        ClockView::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undisturbed_clock_shows_the_time_of_the_world() {
        let clock = ClockView::new();
        assert_eq!((clock.local(5), clock.world(5)), (5, 5));
        assert_eq!(clock.wall_ms(2_500_000), WALL_START_MS + 2);
    }

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let mut clock = ClockView::new();
        clock.drift(1_000, -400_000);
        let mut last = 0;
        for world in 0..5_000 {
            match world {
                2_000 => clock.jump(world, Offset { nanos: 700 }),
                3_000 => clock.jump(world, Offset { nanos: -700 }),
                4_000 => clock.drift(world, 300_000),
                _ => {}
            }
            let local = clock.local(world);
            assert!(local >= last, "at {world}: {local} after {last}");
            last = local;
        }
    }

    #[test]
    fn a_moment_comes_exactly_when_the_clock_shows_it() {
        for ppm in [-500_000, -3, 0, 7, 500_000] {
            let mut clock = ClockView::new();
            clock.drift(100, ppm);
            for local in 100..400 {
                let world = clock.world(local);
                assert!(clock.local(world) >= local, "{ppm} ppm, {local}");
                assert!(world <= 100 || clock.local(world - 1) < local, "{ppm} ppm, {local}");
            }
        }
    }

    #[test]
    fn moments_before_a_change_are_found_in_the_time_of_the_world() {
        let mut clock = ClockView::new();
        clock.drift(1_000, 1_000_000);
        clock.jump(2_000, Offset { nanos: 5_000 });
        clock.drift(3_000, 0);
        for world in [0, 500, 1_000, 1_500, 2_500, 3_000, 4_000] {
            let mut then = ClockView::new();
            if world >= 1_000 {
                then.drift(1_000, 1_000_000);
            }
            if world >= 2_000 {
                then.jump(2_000, Offset { nanos: 5_000 });
            }
            if world >= 3_000 {
                then.drift(3_000, 0);
            }
            assert_eq!(clock.when(then.local(world)), world);
        }
        assert_eq!(clock.when(4_000), 2_000, "left out by the jump");
    }

    #[test]
    fn a_wall_clock_may_jump_back() {
        let mut clock = ClockView::new();
        let before = clock.wall_ms(9_000_000_000);
        clock.jump(9_000_000_000, Offset { nanos: -5_000_000_000 });
        assert_eq!(clock.wall_ms(9_000_000_000), before - 5_000);
        assert_eq!(clock.local(9_000_000_000), 9_000_000_000);
    }
}

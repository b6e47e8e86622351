//! The rule by which windows change, without any stream.

use super::*;

const FAST: Pace = Pace { half_window_us: 50, round_trip_us: 0 };
const SLOW: Pace = Pace { half_window_us: 10_000_000, round_trip_us: 0 };

/// The window after many grants at one pace.
fn settled(level: Level, fair: u64, mut window: u32, pace: Pace) -> u32 {
    (0..64).for_each(|_| window = next_at(level, fair, window, pace));
    window
}

#[test]
fn a_fast_reader_gets_the_largest_window_and_a_slow_one_the_floor() {
    let most = settings().window_bytes;
    assert_eq!(settled(Level::Plenty, 1, FIRST_WINDOW, FAST), most);
    assert_eq!(settled(Level::Tight, 1, FLOOR, FAST), most);
    assert_eq!(settled(Level::Plenty, 1, most, SLOW), FIRST_WINDOW);
    assert_eq!(settled(Level::Tight, 1, most, SLOW), FLOOR);
    assert_eq!(settled(Level::Short, 1 << 30, most, SLOW), FLOOR);
}

#[test]
fn when_memory_is_short_all_come_to_a_fair_share() {
    let fair = 50_000;
    let down = settled(Level::Short, fair, settings().window_bytes, FAST);
    let up = settled(Level::Short, fair, FLOOR, FAST);
    assert_eq!((down, up), (32768, 32768), "the largest doubling of the floor within the share");
    assert_eq!(
        settled(Level::Short, 1, 65536, FAST),
        FLOOR,
        "the floor is there for each, whatever the share"
    );
}

#[test]
fn a_long_round_trip_is_not_taken_for_a_slow_reader() {
    let pace = |round_trip_us| Pace { half_window_us: 60_000, round_trip_us };
    assert_eq!(next_at(Level::Tight, 1, 32768, pace(0)), 16384);
    assert_eq!(next_at(Level::Tight, 1, 32768, pace(50_000)), 65536);
}

#[test]
fn the_floor_of_the_plentiful_time_widens_nothing() {
    assert_eq!(next_at(Level::Plenty, 1, FLOOR, SLOW), FLOOR);
}

//! Both tables of recovery, whole: each combination of facts has its line here.

#[cfg(test)]
use super::decision::*;

const HEADERS: [Header; 6] =
    [Header::Good, Header::Other, Header::Zero, Header::Foreign, Header::Newer, Header::Damaged];

#[test]
fn each_file_is_judged_by_its_header() {
    use FileVerdict::*;
    // header, and the verdicts for: whole and empty below, whole with a body, short and empty, short with a body
    let table = [
        (Header::Good, [Use, Use, Shortened, Shortened]),
        (Header::Other, [OtherJournal; 4]),
        (Header::Zero, [Unprepared, HeaderLost, Unprepared, HeaderLost]),
        (Header::Foreign, [Foreign; 4]),
        (Header::Newer, [Newer; 4]),
        (Header::Damaged, [HeaderDamaged; 4]),
    ];
    assert_eq!(table.map(|(header, _)| header), HEADERS);
    for (header, expected) in table {
        let found = [(true, false), (true, true), (false, false), (false, true)]
            .map(|(whole, body)| judge_file(HeaderFacts { header, whole, body }));
        assert_eq!(found, expected, "{header:?}");
    }
}

#[test]
fn each_end_of_a_file_is_judged_by_what_comes_later() {
    use Corruption::*;
    use EndVerdict::*;
    let laters = [Later::Nothing, Later::SameFile, Later::ProvesMore, Later::ProvesThis, Later::ProvesLess];
    let missing = Corrupt(MissingGroup);
    let damaged = Corrupt(DamagedGroup);
    // One line for each place where the sound groups end, one column for each of `laters`.
    let table = [
        (Spot::FileEnd, [End, missing, missing, NextFile, DropFailedGroups]),
        (Spot::Blank, [End, missing, missing, NextFile, DropFailedGroups]),
        (Spot::Debris, [CutTornTail, missing, missing, NextFile, DropFailedGroups]),
        (Spot::TornGroup, [CutTornTail, damaged, damaged, NextFile, DropFailedGroups]),
        (Spot::OutOfOrder, [Corrupt(GroupOutOfOrder); 5]),
        (Spot::UnknownKind, [Corrupt(UnknownEntryKind); 5]),
    ];
    for (spot, expected) in table {
        let found = laters.map(|later| judge_end(spot, later));
        assert_eq!(found, expected, "{spot:?}");
    }
}

#[test]
fn only_the_very_end_is_ever_cut() {
    let spots =
        [Spot::FileEnd, Spot::Blank, Spot::Debris, Spot::TornGroup, Spot::OutOfOrder, Spot::UnknownKind];
    for spot in spots {
        for later in [Later::SameFile, Later::ProvesMore, Later::ProvesThis, Later::ProvesLess] {
            assert_ne!(judge_end(spot, later), EndVerdict::CutTornTail);
            assert_ne!(judge_end(spot, later), EndVerdict::End);
        }
    }
}

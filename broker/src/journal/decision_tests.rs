//! Both tables of recovery, whole: each combination of facts has its line here.

#[cfg(test)]
use super::decision::*;

const HEADERS: [Header; 6] =
    [Header::Good, Header::Other, Header::Zero, Header::Foreign, Header::Newer, Header::Damaged];

const SPOTS: [TailState; 6] = [
    TailState::FileEnd,
    TailState::Blank,
    TailState::Debris,
    TailState::TornGroup,
    TailState::OutOfOrder,
    TailState::UnknownKind,
];
const LATERS: [LaterEvidence; 5] = [
    LaterEvidence::Nothing,
    LaterEvidence::SameFile,
    LaterEvidence::ProvesMore,
    LaterEvidence::ProvesThis,
    LaterEvidence::ProvesLess,
];

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
            .map(|(whole, body)| classify_file(HeaderFacts { header, whole, body }));
        assert_eq!(found, expected, "{header:?}");
    }
}

#[test]
fn each_end_of_a_file_is_judged_by_what_comes_later() {
    use Corruption::*;
    use TailVerdict::*;
    let missing = Corrupt(MissingGroup);
    let damaged = Corrupt(DamagedGroup);
    // One line for each place where the sound groups end, one column for each of `LATERS`.
    let table = [
        (TailState::FileEnd, [End, missing, missing, NextFile, DropFailedGroups]),
        (TailState::Blank, [End, missing, missing, NextFile, DropFailedGroups]),
        (TailState::Debris, [CutTornTail, missing, missing, NextFile, DropFailedGroups]),
        (TailState::TornGroup, [CutTornTail, damaged, damaged, NextFile, DropFailedGroups]),
        (TailState::OutOfOrder, [Corrupt(GroupOutOfOrder); 5]),
        (TailState::UnknownKind, [Corrupt(UnknownEntryKind); 5]),
    ];
    for (spot, expected) in table {
        let found = LATERS.map(|later| classify_tail(spot, later).verdict);
        assert_eq!(found, expected, "{spot:?}");
    }
}

#[test]
fn only_the_very_end_is_ever_cut() {
    for spot in SPOTS {
        for later in [
            LaterEvidence::SameFile,
            LaterEvidence::ProvesMore,
            LaterEvidence::ProvesThis,
            LaterEvidence::ProvesLess,
        ] {
            assert_ne!(classify_tail(spot, later).verdict, TailVerdict::CutTornTail);
            assert_ne!(classify_tail(spot, later).verdict, TailVerdict::End);
        }
    }
}

/// One line for each cause, and before it the rows that have it.
#[test]
fn each_row_says_its_cause() {
    let mut causes: Vec<(&str, Vec<String>)> = Vec::new();
    for (spot, later) in SPOTS.iter().flat_map(|spot| LATERS.map(|later| (*spot, later))) {
        let End { cause, .. } = classify_tail(spot, later);
        let row = format!("{spot:?}/{later:?}");
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, rows)) => rows.push(row),
            None => causes.push((cause, vec![row])),
        }
    }
    let told: Vec<String> =
        causes.iter().map(|(cause, rows)| format!("{}: {cause}", rows.join(" "))).collect();
    let expected = [
        "FileEnd/Nothing: the file is full, and nothing was written after it",
        "FileEnd/SameFile Blank/SameFile Debris/SameFile: a group of entries is missing, and a later one in the same file proves that it was synced",
        "FileEnd/ProvesMore Blank/ProvesMore Debris/ProvesMore: a group of entries is missing, and one in a later file proves that it was synced",
        "FileEnd/ProvesThis Blank/ProvesThis: the journal goes on in a later file exactly where this one ends",
        "FileEnd/ProvesLess Blank/ProvesLess Debris/ProvesLess TornGroup/ProvesLess: a later file was begun when less was durable: what exceeds that had failed, and was said to have",
        "Blank/Nothing: the file is blank from here on, and nothing was written after it",
        "Debris/Nothing: bytes without a group's header stand at the very end: the group was being written, so it was never acknowledged",
        "Debris/ProvesThis TornGroup/ProvesThis: the journal goes on in a later file exactly there: what this one has behind it had failed",
        "TornGroup/Nothing: the very last group is damaged: it was being written, so it was never acknowledged",
        "TornGroup/SameFile: a group of entries is damaged, and a later one in the same file proves that it was synced",
        "TornGroup/ProvesMore: a group of entries is damaged, and one in a later file proves that it was synced",
        "OutOfOrder/Nothing OutOfOrder/SameFile OutOfOrder/ProvesMore OutOfOrder/ProvesThis OutOfOrder/ProvesLess: a group of entries is sound and does not follow the one before it",
        "UnknownKind/Nothing UnknownKind/SameFile UnknownKind/ProvesMore UnknownKind/ProvesThis UnknownKind/ProvesLess: an entry is sound, but of a kind that this version does not know",
    ];
    assert_eq!(told, expected);
    let files = [
        FileVerdict::Use,
        FileVerdict::Unprepared,
        FileVerdict::Shortened,
        FileVerdict::HeaderLost,
        FileVerdict::HeaderDamaged,
        FileVerdict::Foreign,
        FileVerdict::OtherJournal,
        FileVerdict::Newer,
    ];
    let told: Vec<String> = files.iter().map(|verdict| format!("{verdict:?}: {}", verdict.cause())).collect();
    let expected = [
        "Use: its header is sound, and all that it promises is there",
        "Unprepared: it is blank from its initial: its preparation never ended, so it held nothing",
        "Shortened: the file is shorter than its header says",
        "HeaderLost: the file's header is gone, and something is below it",
        "HeaderDamaged: the file's header is damaged",
        "Foreign: it does not begin like one; move it elsewhere",
        "OtherJournal: it belongs to another journal of the node; move it back to that directory",
        "Newer: its header is of a format that this version does not know",
    ];
    assert_eq!(told, expected);
}

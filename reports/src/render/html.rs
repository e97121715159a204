//! One HTML file that needs nothing else: the table of a sweep, and every run with its story folded in.

use std::fmt::Write;

use super::terminal::thousands;
use super::{escaped, terminal};
use crate::record::{RunRecord, Verdict};
use crate::status::Status;
use crate::sweep::SweepRecord;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;\
color:#1c1c1c;background:#fff}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;\
width:100%}th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #ddd;vertical-align:top}td.n{text-align:\
right;font-variant-numeric:tabular-nums}pre{background:#f5f5f3;padding:.8rem;overflow-x:auto;font-size:13px;white-space:\
pre-wrap}summary{cursor:pointer;padding:.25rem 0}.ok{color:#176b2c}.bad{color:#b00020;font-weight:600}@media \
(prefers-color-scheme:dark){body{background:#191919;color:#ddd}pre{background:#262626}th,td{border-color:#3a3a3a}\
.ok{color:#7fd08f}.bad{color:#ff8a80}}";

pub fn run(record: &RunRecord) -> String {
    let mut out = head(&format!("{} seed {}", record.scenario, record.seed));
    story(&mut out, record, true);
    out.push_str("</body></html>\n");
    out
}

pub fn sweep(sweep: &SweepRecord) -> String {
    let mut out = head("Chronik simulation sweep");
    let bad = sweep.runs.iter().filter(|run| Status::of_run(run) != Status::Expected).count();
    let _ = writeln!(
        out,
        "<p>{} runs in {:.1} s, <span class=\"{}\">{bad} not as expected</span>.</p>",
        sweep.runs.len(),
        sweep.wall_seconds,
        if bad == 0 { "ok" } else { "bad" }
    );
    out.push_str(
        "<table><tr><th>scenario<th>seeds<th>verdicts<th>expected<th>faults hit<th>events<th>simulated<th>wall</tr>\n",
    );
    for line in sweep.summaries() {
        let verdicts: Vec<String> =
            line.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
        let part = line.part.as_ref().map(|part| format!(" [{}]", escaped(part))).unwrap_or_default();
        let _ = writeln!(
            out,
            "<tr><td>{}{part}<td class=n>{}<td class=\"{}\">{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{:.0} s<td class=n>{:.2} s</tr>",
            escaped(&line.scenario),
            line.seeds.len(),
            if line.status == Status::Expected { "ok" } else { "bad" },
            verdicts.join(", "),
            line.expected,
            line.hits,
            thousands(line.events),
            line.simulated_seconds,
            line.wall_seconds
        );
    }
    out.push_str("</table>\n");
    let missed = sweep.missed_probes();
    let probes = sweep.probes();
    if !probes.is_empty() {
        out.push_str("<h2>Probes</h2><table><tr><th>scenario<th>situation<th>times<th>required</tr>\n");
        for ((scenario, probe), (count, required)) in probes {
            let class = if missed.contains(&(scenario, probe)) { "bad" } else { "ok" };
            let _ = writeln!(
                out,
                "<tr><td>{}<td>{}<td class=\"n {class}\">{count}<td>{}</tr>",
                escaped(scenario),
                escaped(probe),
                if required { "yes" } else { "" }
            );
        }
        out.push_str("</table>\n");
    }
    out.push_str("<h2>Runs</h2>\n");
    for record in &sweep.runs {
        story(&mut out, record, Status::of_run(record) != Status::Expected);
    }
    out.push_str("</body></html>\n");
    out
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>\n",
        escaped(title)
    )
}

fn story(out: &mut String, record: &RunRecord, open: bool) {
    let class = if Status::of_run(record) == Status::Expected { "ok" } else { "bad" };
    let expected =
        if record.verdict == record.expected && record.verdict != Verdict::Pass { " (expected)" } else { "" };
    let _ = writeln!(
        out,
        "<details{}><summary>{} seed {}: <span class={class}>{}{expected}</span></summary><pre>{}</pre>",
        if open { " open" } else { "" },
        escaped(&record.scenario),
        record.seed,
        record.verdict,
        escaped(&terminal::run(record))
    );
    if !record.hits.is_empty() {
        out.push_str("<table><tr><th>fault<th>hits</tr>\n");
        for hit in &record.hits {
            let _ = writeln!(out, "<tr><td>{}<td class=n>{}</tr>", escaped(&hit.fault), hit.hits);
        }
        out.push_str("</table>\n");
    }
    if !record.last_events.is_empty() {
        let _ = writeln!(
            out,
            "<details><summary>last events</summary><pre>{}</pre></details>",
            escaped(&record.last_events.join("\n"))
        );
    }
    out.push_str("</details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let html = sweep(&SweepRecord::new(vec![sample::freeze()], 1.0));
        for outside in ["http:", "https:", "src=", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("&lt;wal&gt;") && !html.contains("<wal>"));
    }

    #[test]
    fn a_single_run_is_shown_unfolded() {
        assert!(run(&sample::freeze()).contains("<details open>"));
    }
}

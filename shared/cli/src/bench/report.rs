//! Figures: as a table for people, as JSON for programs, as Markdown for docs/performance.md.

use super::options::Subject;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What one benchmark found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// What was measured.
    pub(super) subject: Subject,
    /// The columns, the first of them names the row.
    pub(super) columns: Vec<&'static str>,
    /// The rows, each as long as the columns.
    pub(super) rows: Vec<Vec<String>>,
    /// What has to be known to read them; each is a sentence.
    pub(super) notes: Vec<String>,
    /// The same figures as values.
    pub(super) values: Value,
    /// A picture of them for a terminal.
    pub(super) chart: Option<String>,
}

/// What a person reads a report with.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Circumstances {
    /// The command line that measures it again.
    pub(super) command: String,
    /// The day, UTC.
    pub(super) date: String,
    /// The commit, and whether files differed from it.
    pub(super) commit: String,
    /// Processor, cores and kernel.
    pub(super) machine: String,
    /// What stands beside figures that mean nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<&'static str>,
}

impl Report {
    /// For programs.
    pub(super) fn json(&self, circumstances: &Circumstances) -> Value {
        json!({"benchmark": self.subject.name(), "circumstances": circumstances, "values": self.values, "notes": self.notes})
    }

    /// For people, at a terminal.
    pub(super) fn text(&self, circumstances: &Circumstances) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(index, text)| {
                let alignment = if index == 0 { CellAlignment::Left } else { CellAlignment::Right };
                Cell::new(text).set_alignment(alignment)
            }));
        }
        let notes: String = self.notes.iter().map(|note| format!("\n- {note}")).collect();
        let warning = circumstances.warning.map(|warning| format!("\n{warning}")).unwrap_or_default();
        let chart = self.chart.as_ref().map(|chart| format!("\n{chart}")).unwrap_or_default();
        format!("{}: {}{warning}\n{table}{chart}{notes}\n", self.subject.name(), circumstances.machine)
    }

    /// For docs/performance.md.
    pub(super) fn markdown(&self, circumstances: &Circumstances) -> String {
        let Circumstances { command, date, commit, machine, .. } = circumstances;
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let rule = self.columns.iter().enumerate().map(|(index, _)| if index == 0 { "---" } else { "---:" });
        let mut text = format!("`{command}`, {date}, commit {commit}, on {machine}:\n\n");
        text += &line(self.columns.clone());
        text += &line(rule.collect());
        for row in &self.rows {
            text += &line(row.iter().map(String::as_str).collect());
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text += &format!("- {note}\n");
        }
        text
    }
}

/// Microseconds with one place.
pub(super) fn microseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e6)
}

/// Milliseconds with two places.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Megabytes (10^6 bytes) with one place.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// A whole number in groups of three.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::new();
    if first > 0 {
        groups.push(&digits[..first]);
    }
    groups.extend((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> (Report, Circumstances) {
        let report = Report {
            subject: Subject::Start,
            columns: vec!["function", "ms"],
            rows: vec![vec!["deliver".to_owned(), "2.10".to_owned()]],
            notes: vec!["A note.".to_owned()],
            values: json!([{"function": "deliver", "ms": 2.1}]),
            chart: None,
        };
        let circumstances = Circumstances {
            command: "carillon bench start".to_owned(),
            date: "2026-01-31".to_owned(),
            commit: "abc1234".to_owned(),
            machine: "a processor, 2 cores, Linux 6.1".to_owned(),
            warning: None,
        };
        (report, circumstances)
    }

    #[test]
    fn markdown_has_the_circumstances_the_table_and_the_notes() {
        let (report, circumstances) = report();
        assert_eq!(
            report.markdown(&circumstances),
            "`carillon bench start`, 2026-01-31, commit abc1234, on a processor, 2 cores, Linux 6.1:\n\n\
             | function | ms |\n| --- | ---: |\n| deliver | 2.10 |\n\n- A note.\n"
        );
    }

    #[test]
    fn programs_get_values_and_people_a_table() {
        let (report, circumstances) = report();
        let json = report.json(&circumstances);
        assert_eq!((&json["benchmark"], &json["values"][0]["ms"]), (&json!("start"), &json!(2.1)));
        assert!(json["circumstances"].get("warning").is_none());
        let text = report.text(&circumstances);
        for part in ["start: a processor", "deliver", "2.10", "- A note."] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (12_345_678.0, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(microseconds(Duration::from_nanos(41_250)), "41.2");
        assert_eq!(milliseconds(Duration::from_micros(2_104)), "2.10");
        assert_eq!(megabytes(5_340_000), "5.3");
    }
}

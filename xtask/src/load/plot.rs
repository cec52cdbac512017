//! Throughput and latency against people, as a picture that is readable on light and dark ground.

use std::fmt::Write;

use super::people::Row;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 260.0;
/// Around what is drawn: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (56.0, 34.0, 12.0, 40.0);

struct Line<'a> {
    name: &'a str,
    class: &'a str,
    values: Vec<f64>,
}

/// The picture.
pub(super) fn of(rows: &[Row]) -> String {
    let people: Vec<f64> = rows.iter().map(|row| row.people as f64).collect();
    let line =
        |name, class, value: fn(&Row) -> f64| Line { name, class, values: rows.iter().map(value).collect() };
    let throughput = [
        line("packed", "packed", |row| row.packed.throughput()),
        line("one at a time", "single", |row| row.single.throughput()),
    ];
    let latency = [
        line("packed, p50", "packed", |row| row.packed.quantile(0.5)),
        line("packed, p95", "packed dashed", |row| row.packed.quantile(0.95)),
        line("one at a time, p50", "single", |row| row.single.quantile(0.5)),
        line("one at a time, p95", "single dashed", |row| row.single.quantile(0.95)),
    ];
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>Throughput and latency of the service against the number of people</title>\n<style>\n\
         text {{ fill: #1c1d1f; }} .grid {{ stroke: #d9dade; }} path {{ fill: none; stroke-width: 2; }} .dashed {{ stroke-dasharray: 4 3; }}\n\
         path.packed {{ stroke: #1f5fae; }} path.single {{ stroke: #b3541e; }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e9e9ea; }} .grid {{ stroke: #34363b; }} path.packed {{ stroke: #86b6f2; }} path.single {{ stroke: #f2a66e; }} }}\n\
         </style>\n",
        2.0 * WIDTH
    );
    chart(&mut text, 0.0, "jobs a second", &people, &throughput);
    chart(&mut text, WIDTH, "milliseconds", &people, &latency);
    text + "</svg>\n"
}

/// One chart: people along, by their logarithm; the values up from 0.
fn chart(text: &mut String, left: f64, title: &str, people: &[f64], lines: &[Line<'_>]) {
    let most = lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
    let step = nice(most / 4.0);
    let top = step * (most / step).ceil();
    let (from, to) = (left + MARGIN.0, left + WIDTH - MARGIN.2);
    let (up, down) = (MARGIN.1, HEIGHT - MARGIN.3);
    let (first, last) = (people.first().copied().unwrap_or(1.0), people.last().copied().unwrap_or(2.0));
    let along = |value: f64| from + (to - from) * (value / first).ln() / (last / first).ln().max(1e-9);
    let height = |value: f64| down - (down - up) * value / top;
    let _ = writeln!(text, "<text x=\"{from}\" y=\"16\" font-weight=\"600\">{title}</text>");
    let mut mark = 0.0;
    while mark <= top + step / 2.0 {
        let y = height(mark);
        let _ =
            writeln!(text, "<line class=\"grid\" x1=\"{from}\" y1=\"{y:.1}\" x2=\"{to}\" y2=\"{y:.1}\"/>");
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>",
            from - 6.0,
            y + 4.0
        );
        mark += step;
    }
    for &one in people {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{one}</text>",
            along(one),
            down + 15.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">people</text>",
        (from + to) / 2.0,
        down + 31.0
    );
    for (place, line) in lines.iter().enumerate() {
        let points: Vec<String> = people
            .iter()
            .zip(&line.values)
            .map(|(&one, &value)| format!("{:.1} {:.1}", along(one), height(value)))
            .collect();
        let _ = writeln!(text, "<path class=\"{}\" d=\"M {}\"/>", line.class, points.join(" L "));
        let y = up + 10.0 + 15.0 * place as f64;
        let _ = writeln!(text, "<path class=\"{}\" d=\"M {} {y} h 20\"/>", line.class, from + 10.0);
        let _ = writeln!(text, "<text x=\"{}\" y=\"{}\">{}</text>", from + 36.0, y + 4.0, line.name);
    }
}

/// 1, 2 or 5 with zeros: the next above.
fn nice(step: f64) -> f64 {
    let unit = 10_f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * unit).find(|&nice| nice >= step).unwrap_or(unit)
}

#[cfg(test)]
mod tests {
    use super::nice;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.3, 1.0, 3.0, 7.0, 24.0].map(nice), [0.5, 1.0, 5.0, 10.0, 50.0]);
    }
}

//! One plot, drawn as SVG.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, Scale, time_label, time_marks};
use super::strip::{Label, Placed, place};
use super::{Drawing, Strength, color};
use crate::report::rehearsal::{Fault, Phase};

/// What is to be drawn.
pub struct Chart<'a> {
    /// The later ones lie over the earlier ones.
    pub lines: &'a [Line],
    /// Of the upright axis.
    pub scale: Scale,
    /// From the left edge to the right.
    pub seconds: Range<f64>,
    /// Shaded.
    pub phases: &'a [Phase],
    /// Marked.
    pub faults: &'a [Fault],
}

/// Values over time.
pub struct Line {
    /// What the key to the plot calls it.
    pub name: &'static str,
    /// Its colour.
    pub color: RGBColor,
    /// How it looks besides.
    pub strength: Strength,
    /// Seconds and values; a gap where there is none.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Measures of a drawing, in units that are half a pixel of the page: plotters knows no fractions.
pub struct Shape {
    width: u32,
    plot_height: u32,
    /// For the labels of the upright axis.
    left: u32,
    text: u32,
    marks_wanted: f64,
    phase_rows: usize,
    fault_rows: usize,
}

impl Shape {
    /// For a page of 1000 pixels.
    pub const WIDE: Self = Self {
        width: 2000,
        plot_height: 400,
        left: 116,
        text: 24,
        marks_wanted: 10.0,
        phase_rows: 4,
        fault_rows: 3,
    };
    /// For a phone.
    pub const NARROW: Self = Self {
        width: 700,
        plot_height: 380,
        left: 100,
        text: 23,
        marks_wanted: 4.0,
        phase_rows: 6,
        fault_rows: 0,
    };

    fn row(&self) -> i32 {
        self.text as i32 * 5 / 4
    }

    /// The width of a letter on average.
    fn letter(&self) -> f64 {
        f64::from(self.text) * 0.56
    }

    fn style(&self, color: RGBColor) -> TextStyle<'static> {
        // plotters divides by 1.24 what it is given.
        let font = ("sans-serif", f64::from(self.text) * 1.24).into_font();
        font.color(&color).pos(Pos::new(HPos::Left, VPos::Center))
    }
}

type Plane<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failed = DrawingAreaErrorKind<std::io::Error>;

impl Chart<'_> {
    /// Draws it.
    pub fn draw(&self, shape: &Shape) -> Drawing {
        let phases = self.phase_labels(shape);
        let faults = self.fault_labels(shape);
        let rows = |placed: &[Placed]| placed.iter().map(|label| label.row as i32 + 1).max().unwrap_or(0);
        // Below the key: phases, faults, then the numbers of faults.
        let numbers = i32::from(!self.faults_shown().is_empty());
        let top = shape.row() * (1 + rows(&phases.1) + rows(&faults.1) + numbers) + shape.row() / 2;
        let height = top as u32 + shape.plot_height + shape.row() as u32;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (shape.width, height)).into_drawing_area();
            let drawn = self.draw_on(&root, shape, top, &phases, &faults);
            // Text into memory does not fail, and a plot that is cut off is better than no page.
            let _ = drawn.and_then(|()| root.present());
        }
        Drawing {
            width: shape.width,
            height,
            elements: inside(&svg),
        }
    }

    fn draw_on<'a>(
        &self,
        root: &DrawingArea<SVGBackend<'a>, Shift>,
        shape: &Shape,
        top: i32,
        phases: &(Vec<Label>, Vec<Placed>),
        faults: &(Vec<Label>, Vec<Placed>),
    ) -> Result<(), Failed> {
        let values = self
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .filter_map(|(_, value)| *value);
        let axis = Axis::upright(self.scale, values);
        let mut plane = ChartBuilder::on(root)
            .margin_top(top)
            .margin_right(RIGHT)
            .x_label_area_size(shape.row())
            .y_label_area_size(shape.left)
            .build_cartesian_2d(self.seconds.clone(), axis.range.clone())?;
        self.shade(&mut plane, &axis)?;
        self.grid(&mut plane, root, shape, &axis)?;
        for line in self.lines {
            draw_line(&mut plane, &axis, line)?;
        }
        self.mark_faults(&mut plane, root, shape, &axis, top)?;
        self.key(root, shape)?;

        let left = shape.left as i32;
        let base = top - shape.row() * i32::from(!self.faults_shown().is_empty()) - shape.row() / 2;
        let fault_rows = faults.1.iter().map(|label| label.row as i32 + 1).max().unwrap_or(0);
        for (labels, base, color) in [
            (faults, base, color::FAULT),
            (phases, base - shape.row() * fault_rows, color::TEXT),
        ] {
            for label in &labels.1 {
                let place = (left + label.left, base - shape.row() * label.row as i32 - shape.row() / 3);
                root.draw(&Text::new(labels.0[label.index].text.clone(), place, shape.style(color)))?;
            }
        }
        Ok(())
    }

    /// Every other phase has a ground of its own.
    fn shade(&self, plane: &mut Plane<'_>, axis: &Axis) -> Result<(), Failed> {
        let (low, high) = (axis.range.start, axis.range.end);
        let rectangle = |begin: f64, end: f64, color: RGBColor| {
            let (begin, end) = (self.within(begin), self.within(end));
            Rectangle::new([(begin, low), (end, high)], color.filled())
        };
        let phases = self.phases_shown().enumerate().filter(|(at, _)| at % 2 == 1);
        plane.draw_series(phases.map(|(_, phase)| rectangle(phase.begin_seconds, phase.end_seconds, color::SHADE)))?;
        let lasting = self
            .faults
            .iter()
            .filter_map(|fault| Some((fault.at_seconds, fault.until_seconds?)));
        plane.draw_series(lasting.map(|(begin, end)| rectangle(begin, end, color::FAULT_SHADE)))?;
        Ok(())
    }

    /// Lines at the marks, and what the marks mean.
    fn grid(
        &self,
        plane: &mut Plane<'_>,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        shape: &Shape,
        axis: &Axis,
    ) -> Result<(), Failed> {
        let Range { start, end } = self.seconds;
        let (low, high) = (axis.range.start, axis.range.end);
        let (grid, edge) = (color::GRID.stroke_width(2), color::AXIS.stroke_width(2));
        let times = time_marks(&self.seconds, shape.marks_wanted);
        let upright = times.iter().map(|at| PathElement::new(vec![(*at, low), (*at, high)], grid));
        plane.draw_series(upright)?;
        let level = axis
            .marks
            .iter()
            .map(|at| PathElement::new(vec![(start, *at), (end, *at)], grid));
        plane.draw_series(level)?;
        plane.draw_series([PathElement::new(vec![(start, high), (start, low), (end, low)], edge)])?;

        let below = shape.style(color::TEXT).pos(Pos::new(HPos::Center, VPos::Center));
        for at in times {
            let (x, y) = plane.backend_coord(&(at, low));
            root.draw(&Text::new(time_label(at, end), (x, y + shape.row() * 3 / 5), below.clone()))?;
        }
        let beside = shape.style(color::TEXT).pos(Pos::new(HPos::Right, VPos::Center));
        for at in &axis.marks {
            let (x, y) = plane.backend_coord(&(start, *at));
            root.draw(&Text::new(axis.label(*at), (x - shape.text as i32 / 2, y), beside.clone()))?;
        }
        Ok(())
    }

    /// A line down from a number, which the table of faults explains.
    fn mark_faults(
        &self,
        plane: &mut Plane<'_>,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        shape: &Shape,
        axis: &Axis,
        top: i32,
    ) -> Result<(), Failed> {
        let (low, high) = (axis.range.start, axis.range.end);
        let faults = self.faults_shown();
        let style = color::FAULT.stroke_width(2);
        plane.draw_series(
            faults
                .iter()
                .map(|(_, fault)| PathElement::new(vec![(fault.at_seconds, low), (fault.at_seconds, high)], style)),
        )?;
        let mut free = 0;
        for (number, fault) in &faults {
            let (x, _) = plane.backend_coord(&(fault.at_seconds, high));
            if x >= free {
                let text = shape.style(color::FAULT).pos(Pos::new(HPos::Center, VPos::Center));
                root.draw(&Text::new(number.to_string(), (x, top - shape.row() / 2), text))?;
                free = x + (shape.letter() * (number.to_string().len() as f64 + 0.7)) as i32;
            }
        }
        Ok(())
    }

    /// What the colours mean.
    fn key(&self, root: &DrawingArea<SVGBackend<'_>, Shift>, shape: &Shape) -> Result<(), Failed> {
        let (mut x, y) = (shape.left as i32, shape.row() / 2);
        let swatch = shape.text as i32;
        for line in self.lines.iter().rev() {
            if line.strength == Strength::Dots {
                root.draw(&Circle::new((x + swatch / 2, y), DOT, line.color.filled()))?;
            } else {
                root.draw(&PathElement::new(vec![(x, y), (x + swatch, y)], line.style()))?;
            }
            x += swatch + swatch / 3;
            root.draw(&Text::new(line.name, (x, y), shape.style(color::TEXT)))?;
            x += (shape.letter() * (line.name.len() as f64 + 1.5)) as i32;
        }
        Ok(())
    }

    fn phases_shown(&self) -> impl Iterator<Item = &Phase> {
        let Range { start, end } = self.seconds;
        let is_shown = move |phase: &&Phase| phase.end_seconds > start && phase.begin_seconds < end;
        self.phases.iter().filter(is_shown)
    }

    /// Faults with their numbers, which are those of the table.
    fn faults_shown(&self) -> Vec<(usize, &Fault)> {
        let numbered = self.faults.iter().enumerate().map(|(at, fault)| (at + 1, fault));
        numbered
            .filter(|(_, fault)| self.seconds.contains(&fault.at_seconds))
            .collect()
    }

    fn phase_labels(&self, shape: &Shape) -> (Vec<Label>, Vec<Placed>) {
        let labels = self.phases_shown().map(|phase| Label {
            text: phase.name.clone(),
            at: self.pixel(shape, phase.begin_seconds),
        });
        let labels: Vec<Label> = labels.collect();
        let placed = place(&labels, self.plot_width(shape), shape.letter(), shape.phase_rows);
        (labels, placed)
    }

    fn fault_labels(&self, shape: &Shape) -> (Vec<Label>, Vec<Placed>) {
        let labels = self.faults_shown().into_iter().map(|(number, fault)| Label {
            text: format!("{number} {}", fault.name),
            at: self.pixel(shape, fault.at_seconds) - shape.text as i32 / 3,
        });
        let labels: Vec<Label> = labels.collect();
        let placed = place(&labels, self.plot_width(shape), shape.letter(), shape.fault_rows);
        (labels, placed)
    }

    fn plot_width(&self, shape: &Shape) -> i32 {
        (shape.width - shape.left) as i32 - RIGHT
    }

    /// Units to the right of the upright axis.
    fn pixel(&self, shape: &Shape, seconds: f64) -> i32 {
        let share = (self.within(seconds) - self.seconds.start) / (self.seconds.end - self.seconds.start);
        (share * f64::from(self.plot_width(shape))) as i32
    }

    fn within(&self, seconds: f64) -> f64 {
        seconds.clamp(self.seconds.start, self.seconds.end)
    }
}

impl Line {
    fn style(&self) -> ShapeStyle {
        self.color.stroke_width(if self.strength == Strength::Thin { 2 } else { 4 })
    }
}

fn draw_line(plane: &mut Plane<'_>, axis: &Axis, line: &Line) -> Result<(), Failed> {
    for run in line.points.split(|(_, value)| value.is_none()) {
        let points: Vec<(f64, f64)> = run
            .iter()
            .filter_map(|(seconds, value)| Some((*seconds, axis.position((*value)?))))
            .collect();
        if line.strength == Strength::Dots || points.len() == 1 {
            plane.draw_series(points.into_iter().map(|point| Circle::new(point, DOT, line.color.filled())))?;
        } else if !points.is_empty() {
            plane.draw_series(LineSeries::new(points, line.style()))?;
        }
    }
    Ok(())
}

/// What stands between `<svg …>` and `</svg>`.
fn inside(svg: &str) -> String {
    let begin = svg.find('>').map_or(0, |at| at + 1);
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    svg.get(begin..end).unwrap_or_default().trim().to_owned()
}

/// Units beside the plot, for half a label of the last mark.
const RIGHT: i32 = 40;
/// Units.
const DOT: i32 = 6;

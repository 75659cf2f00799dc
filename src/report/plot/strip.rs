//! The strip of labels above a plot: each stands over its place as nearly as it can, in as few rows as can be.

/// A label that wants to stand over a place.
#[derive(Debug, Clone)]
pub struct Label {
    /// What it says.
    pub text: String,
    /// Where its left end would best be.
    pub at: i32,
}

/// A label that found a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which of the labels.
    pub index: usize,
    /// Its left end.
    pub left: i32,
    /// Its row, counted from the plot upwards.
    pub row: usize,
}

/// Places labels from left to right within `width`, each in the lowest row that is free there; those that fit in none of `rows_max`
/// rows are left out.
pub fn place(labels: &[Label], width: i32, letter: f64, rows_max: usize) -> Vec<Placed> {
    let mut ends = vec![i32::MIN; rows_max];
    let mut placed = Vec::new();
    for (index, label) in labels.iter().enumerate() {
        let length = (label.text.chars().count() as f64 * letter).ceil() as i32;
        let left = label.at.min(width - length).max(0);
        if length > width {
            continue;
        }
        if let Some(row) = ends.iter().position(|end| *end <= left) {
            ends[row] = left + length + letter as i32;
            placed.push(Placed { index, left, row });
        }
    }
    placed
}

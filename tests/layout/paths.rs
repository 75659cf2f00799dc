//! The paths of a source file that start at `crate`, `super` or `self`, and the top folder that each of them reaches.

use super::words::Word;

/// A path that leads to the root of the crate.
#[derive(Debug)]
pub struct Import {
    /// The top folder that it reaches; `None` when it takes in the whole crate.
    pub target: Option<String>,
    /// The line of its last word.
    pub line: usize,
    /// `super::*`.
    pub is_super_glob: bool,
    /// Inside an inline module under `#[cfg(test)]`.
    pub in_tests: bool,
}

/// All imports of a file of the module `module`; also paths in expressions, types and `pub(in …)`.
pub fn imports(words: &[Word], module: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    let mut inline: Vec<InlineModule> = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < words.len() {
        match words[at].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|module| module.depth > depth);
            }
            "mod" if text(words, at + 2) == "{" => {
                depth += 1;
                let in_tests = inline.last().is_some_and(|outer| outer.in_tests) || is_test_attribute(&words[..at]);
                inline.push(InlineModule {
                    name: words[at + 1].text.clone(),
                    depth,
                    in_tests,
                });
                at += 2;
            }
            "crate" | "super" | "self" if at == 0 || words[at - 1].text != "::" => {
                let mut here: Vec<String> = module.to_vec();
                here.extend(inline.iter().map(|module| module.name.clone()));
                let in_tests = inline.last().is_some_and(|module| module.in_tests);
                let is_use = use_begins(words, at);
                at = Follower {
                    words,
                    in_tests,
                    is_use,
                    found: &mut found,
                }
                .follow(at, Place::of(here));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

struct InlineModule {
    name: String,
    /// Braces open inside it.
    depth: usize,
    in_tests: bool,
}

/// Where a path has got to.
#[derive(Clone)]
struct Place {
    module: Vec<String>,
    /// It has passed the root of the crate, so that its next name is a top folder.
    from_root: bool,
    only_super: bool,
}

impl Place {
    fn of(module: Vec<String>) -> Self {
        Self {
            module,
            from_root: false,
            only_super: false,
        }
    }

    fn step(&mut self, word: &str) {
        match word {
            "crate" => (self.module, self.from_root, self.only_super) = (Vec::new(), true, false),
            "super" => {
                self.module.pop();
                self.from_root = self.module.is_empty();
                self.only_super = true;
            }
            "self" => {}
            name => {
                self.module.push(name.to_owned());
                self.only_super = false;
            }
        }
    }
}

struct Follower<'a> {
    words: &'a [Word],
    in_tests: bool,
    /// In a `use`, a bare `crate` or `super` is an import of it; elsewhere (`pub(crate)`, `self.x`) it is not.
    is_use: bool,
    found: &'a mut Vec<Import>,
}

impl Follower<'_> {
    /// Follows one path, or every path of a group, from the word at `at`; returns where it ended.
    fn follow(&mut self, mut at: usize, mut place: Place) -> usize {
        let mut length = 0;
        loop {
            match text(self.words, at) {
                "{" if length > 0 || self.is_use => {
                    at += 1;
                    while !matches!(text(self.words, at), "}" | "") {
                        at = self.follow(at, place.clone());
                        while !matches!(text(self.words, at), "," | "}" | "") {
                            at += 1; // `as name`
                        }
                        at += usize::from(text(self.words, at) == ",");
                    }
                    return at + 1;
                }
                "*" if self.is_use => {
                    self.arrive(at, &place, true);
                    return at + 1;
                }
                word if is_name(word) => {
                    place.step(word);
                    length += 1;
                }
                _ => return at,
            }
            if text(self.words, at + 1) != "::"
                || !(is_name(text(self.words, at + 2)) || matches!(text(self.words, at + 2), "{" | "*"))
            {
                if self.is_use || length > 1 {
                    self.arrive(at, &place, false);
                }
                return at + 1;
            }
            at += 2;
        }
    }

    fn arrive(&mut self, at: usize, place: &Place, is_glob: bool) {
        let is_super_glob = is_glob && place.only_super;
        if place.from_root || is_super_glob {
            let whole_crate = place.from_root && place.module.is_empty();
            self.found.push(Import {
                // A glob over a module that is not the root reaches its folder like any other path.
                target: if whole_crate { None } else { place.module.first().cloned() },
                line: self.words[at].line,
                is_super_glob,
                in_tests: self.in_tests,
            });
        }
    }
}

/// Whether the path at `at` is that of a `use` declaration.
fn use_begins(words: &[Word], at: usize) -> bool {
    at > 0 && words[at - 1].text == "use"
}

/// Whether the words before `mod` end in `#[cfg(test)]`, perhaps with more attributes or a visibility after it.
fn is_test_attribute(before: &[Word]) -> bool {
    let start = before
        .iter()
        .rposition(|word| matches!(word.text.as_str(), ";" | "{" | "}"))
        .map_or(0, |at| at + 1);
    let texts: Vec<&str> = before[start..].iter().map(|word| word.text.as_str()).collect();
    texts
        .windows(7)
        .any(|words| words == ["#", "[", "cfg", "(", "test", ")", "]"])
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn text(words: &[Word], at: usize) -> &str {
    words.get(at).map_or("", |word| word.text.as_str())
}

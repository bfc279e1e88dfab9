//! Where the text of a YAML scalar is in its file: a list inside of a ConfigMap manifest has problems with the lines and
//! columns of the manifest.

/// The place in a file of each character of a scalar's text.
#[derive(Debug)]
pub(super) struct Places {
    /// Line and column of each character, in order.
    marks: Vec<(u32, u32)>,
    /// Index of each line's first character.
    starts: Vec<usize>,
    /// Where the scalar itself begins.
    scalar: (u32, u32),
}

impl Places {
    /// Finds the text of the scalar that begins at this line and column of the file.
    ///
    /// White space differs between the two by style: indentation, folded lines, escapes. So the other characters are
    /// compared in order, and white space follows them.
    pub(super) fn find(file: &str, line: usize, column: usize, text: &str) -> Self {
        let mut source = Source::at(file, line, column, text.trim_start().chars().next());
        let scalar = (source.line, source.column);
        let mut marks = Vec::with_capacity(text.len());
        let mut starts = vec![0];
        for (index, c) in text.chars().enumerate() {
            if c == '\n' {
                starts.push(index + 1);
                marks.push((source.line, source.column));
                continue;
            }
            if !c.is_whitespace() {
                source.skip_to(c);
            }
            marks.push((source.line, source.column));
            if !c.is_whitespace() {
                source.consume();
            }
        }
        Self { marks, starts, scalar }
    }

    /// The place in the file of a line and column of the text, all from 1.
    pub(super) fn of(&self, line: usize, column: usize) -> (usize, usize) {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.marks.len());
        let found = self.marks.get(start + column.saturating_sub(1)).or(self.marks.last()).unwrap_or(&self.scalar);
        (found.0 as usize, found.1 as usize)
    }
}

/// A file from where a scalar begins.
struct Source<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
    /// Whether a backslash begins an escape.
    escapes: bool,
    /// Whether the text cannot be found here: an alias, whose text is elsewhere.
    lost: bool,
}

impl<'a> Source<'a> {
    fn at(file: &'a str, line: usize, column: usize, first: Option<char>) -> Self {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        let rest = file.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
        let rest = &file[rest..];
        let skipped = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut source =
            Self { rest: &rest[skipped..], line: number(line), column: number(column), escapes: false, lost: false };
        // what is not the text's own first character belongs to its notation; the lines of a block are the text itself
        let notation = |source: &Self, marks: &[char]| {
            source.rest.starts_with(marks) && !source.rest.starts_with(first.unwrap_or(' '))
        };
        while notation(&source, &['&', '!']) {
            source.advance_while(|c| !c.is_whitespace());
            source.advance_while(char::is_whitespace);
        }
        if notation(&source, &['*']) {
            source.lost = true;
        } else if notation(&source, &['"']) || source.rest.starts_with("\"\\\"") {
            source.escapes = true;
            source.advance();
        }
        source
    }

    /// Goes to where this character is written, escapes included.
    fn skip_to(&mut self, wanted: char) {
        while !self.lost {
            match self.next() {
                Some((found, _)) if found == wanted => return,
                Some((_, length)) => self.advance_by(length),
                None => self.lost = true,
            }
        }
    }

    fn consume(&mut self) {
        if !self.lost
            && let Some((_, length)) = self.next()
        {
            self.advance_by(length);
        }
    }

    /// The character that is written next, and how many bytes that takes.
    fn next(&self) -> Option<(char, usize)> {
        let first = self.rest.chars().next()?;
        if !self.escapes || first != '\\' {
            return Some((first, first.len_utf8()));
        }
        let kind = self.rest[1..].chars().next()?;
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            // white space is skipped, whatever it is
            'n' | 't' | 'r' | '0' | 'a' | 'b' | 'v' | 'f' | 'e' => return Some((' ', 2)),
            other => return Some((other, 1 + other.len_utf8())),
        };
        let number = self.rest.get(2..2 + digits).and_then(|d| u32::from_str_radix(d, 16).ok());
        Some((number.and_then(char::from_u32).unwrap_or(' '), if number.is_some() { 2 + digits } else { 2 }))
    }

    fn advance_by(&mut self, bytes: usize) {
        let end = self.rest.len() - bytes;
        while self.rest.len() > end {
            self.advance();
        }
    }

    fn advance_while(&mut self, more: impl Fn(char) -> bool) {
        while self.rest.starts_with(&more) {
            self.advance();
        }
    }

    fn advance(&mut self) {
        let Some(c) = self.rest.chars().next() else { return };
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }
}

//! Contact sheets as PNG, for people.

//! A list that only grows at its end and shares everything before: each append is a new list, the old one stays.
//!
//! Every node knows the one before it and one further back; the jumps are those of a skew-binary counter (Myers 1983),
//! so that an append costs O(1) and finding a node O(log n).

use std::sync::Arc;

/// The end of a list; `None` is an empty one.
pub type Tail<T> = Option<Arc<Node<T>>>;

/// A value with all that came before it.
#[derive(Debug)]
pub struct Node<T> {
    /// Value.
    pub value: T,
    /// The node before.
    pub before: Tail<T>,
    jump: Tail<T>,
    depth: u64,
}

impl<T> Node<T> {
    /// `value` after `before`.
    pub fn push(value: T, before: Tail<T>) -> Arc<Node<T>> {
        let jump = before.as_ref().and_then(|near| {
            let Some(far) = &near.jump else { return before.clone() };
            let further = far.jump.as_ref().map_or(0, |f| f.depth);
            if near.depth - far.depth == far.depth - further { far.jump.clone() } else { before.clone() }
        });
        let depth = before.as_ref().map_or(1, |b| b.depth + 1);
        Arc::new(Node { value, before, jump, depth })
    }
}

/// The last node of `tail` whose value passes; `pass` must be true up to some node and false after it.
pub fn last<T>(tail: &Tail<T>, pass: impl Fn(&T) -> bool) -> Option<&Arc<Node<T>>> {
    let mut at = tail.as_ref()?;
    while !pass(&at.value) {
        at = match &at.jump {
            Some(far) if !pass(&far.value) => far,
            Some(_) | None => at.before.as_ref()?,
        };
    }
    Some(at)
}

impl<T> Drop for Node<T> {
    /// Lets go of the nodes before it one by one: a recursion per node would overflow the stack.
    fn drop(&mut self) {
        self.jump = None;
        let mut next = self.before.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            node.jump = None;
            next = node.before.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_is_found_in_few_steps() {
        let (mut tail, n) = (None, 100_000u64);
        let mut old = None;
        for i in 0..n {
            tail = Some(Node::push(i, tail));
            if i == 1_000 {
                old = tail.clone();
            }
        }
        for wanted in [0, 1, 2, 3, 500, 1_000, 65_535, 65_536, n - 2, n - 1] {
            let looks = std::cell::Cell::new(0);
            let found = last(&tail, |v| {
                looks.set(looks.get() + 1);
                *v <= wanted
            });
            assert_eq!(found.unwrap().value, wanted);
            assert!(looks.get() < 120, "{} looks for {wanted}", looks.get());
        }
        assert!(last(&tail, |_| false).is_none());
        // Dropping the long list leaves the old one as it was.
        drop(tail);
        assert_eq!(last(&old, |v| *v <= 7).unwrap().value, 7);
        assert_eq!(last(&old, |v| *v <= n).unwrap().value, 1_000);
    }
}

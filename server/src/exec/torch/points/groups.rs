//! The order in which the ops of all scenes are carried out: together, where several have the same one next.

use crate::plan::scene::SceneOp;

/// Scenes that have the same op next.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// Numbers of the scenes, ascending.
    pub scenes: Vec<usize>,
    /// The op of each.
    pub ops: Vec<&'a SceneOp>,
}

/// Groups of the ops of scenes, each scene's in its order. Of the ops that come next, the one that a drawn list has first
/// is taken first: then a scene without it waits for those that have it.
pub(super) fn groups<'a>(lists: &[Vec<&'a SceneOp>]) -> Vec<Group<'a>> {
    let mut left: Vec<&[&SceneOp]> = lists.iter().map(Vec::as_slice).collect();
    let mut groups = Vec::new();
    while let Some(next) = left.iter().filter_map(|ops| ops.first()).map(|op| rank(op)).min() {
        let mut group = Group { scenes: Vec::new(), ops: Vec::new() };
        for (scene, ops) in left.iter_mut().enumerate() {
            if let Some((op, rest)) = ops.split_first()
                && rank(op) == next
            {
                group.scenes.push(scene);
                group.ops.push(op);
                *ops = rest;
            }
        }
        groups.push(group);
    }
    groups
}

/// Place of an op in a drawn list.
fn rank(op: &SceneOp) -> u8 {
    match op {
        SceneOp::Keep { .. } => 0,
        SceneOp::Crop { .. } => 1,
        SceneOp::Flip { .. } => 2,
        SceneOp::Elastic { .. } => 3,
        SceneOp::Scale { .. } => 4,
        SceneOp::Rotate { .. } => 5,
        SceneOp::Centre | SceneOp::Recentre => 6,
        SceneOp::Shift { .. } => 7,
        SceneOp::Jitter { .. } => 8,
        SceneOp::Colour { .. } => 9,
        SceneOp::ChannelDrop { .. } => 10,
        SceneOp::ColourJitter { .. } => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_wait_for_those_that_have_an_op_before_the_common_one() {
        let flip = SceneOp::Flip { axes: [true, false, false], translate: false };
        let (scale, shift) = (SceneOp::Scale { factor: [2.0; 3] }, SceneOp::Shift { fraction: [0.5; 3] });
        let lists = [
            vec![&scale, &SceneOp::Recentre, &shift],
            vec![&flip, &scale, &SceneOp::Recentre],
            vec![&shift, &flip],
            vec![],
        ];
        let made: Vec<_> = groups(&lists).into_iter().map(|g| (rank(g.ops[0]), g.scenes)).collect();
        let want = [(2, vec![1]), (4, vec![0, 1]), (6, vec![0, 1]), (7, vec![0, 2]), (2, vec![2])];
        assert_eq!(made, want);
    }
}

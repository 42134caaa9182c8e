"""Artifacts on a user's own labelled data: task scores, paired with the reference's."""

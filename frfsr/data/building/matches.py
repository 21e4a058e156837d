"""Which points of two photos show the same: root-SIFT, ratio test, mutual, and one epipolar geometry by RANSAC."""

import cv2
import numpy as np

from frfsr.data.building.photos import Features

RATIO = 0.8
EPIPOLAR_DISTANCE = 1.5  # pixels at the working size
FEWEST = 14  # inliers of a pair of photos that is worth looking at


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """(N, 128) uint8 -> float32 of norm 1, whose products compare as Hellinger's kernel."""
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))


def mutual_matches(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Pairs that are each other's nearest, clearly nearer than the query's second nearest.

    Args:
        queries: (N, 128) of `root_sift`.
        keys: (M, 128) of `root_sift`.

    Returns:
        (K, 2) rows of queries and keys.
    """
    if not len(queries) or len(keys) < 2:
        return np.zeros((0, 2), int)
    likeness = queries @ keys.T
    rows, best = np.arange(len(queries)), likeness.argmax(axis=1)
    mutual = likeness.argmax(axis=0)[best] == rows
    nearest = 2 - 2 * likeness[rows, best]
    likeness[rows, best] = -1
    second = 2 - 2 * likeness.max(axis=1)
    good = mutual & (nearest < RATIO**2 * second)
    return np.stack([rows[good], best[good]], axis=1)


def inliers(first: Features, second: Features) -> np.ndarray:
    """Places in two photos that show the same and obey one epipolar geometry.

    Returns:
        (K, 2, 2) float32: in the first and in the second photo, (x, y) at their working sizes; K is 0 if too few do.
    """
    pairs = mutual_matches(root_sift(first.descriptors), root_sift(second.descriptors))
    none = np.zeros((0, 2, 2), np.float32)
    if len(pairs) < FEWEST:
        return none
    places = np.stack([first.points[pairs[:, 0]], second.points[pairs[:, 1]]], axis=1)
    method = cv2.USAC_MAGSAC
    _, mask = cv2.findFundamentalMat(*sides(places), method, EPIPOLAR_DISTANCE, 0.999, 10_000)
    if mask is None or mask.sum() < FEWEST:
        return none
    return places[mask.ravel() > 0]


def local_map(places: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit the affine map by which one neighbourhood is seen in the other photo.

    Args:
        places: (K, 2, 2) as of `inliers`.
        tolerance: in pixels of the second photo.

    Returns:
        The map (2, 3), zeros if there is none; and which of the places it explains, (K,) bool.
    """
    if len(places) < 3:
        return np.zeros((2, 3)), np.zeros(len(places), bool)
    found, mask = cv2.estimateAffine2D(
        *sides(places),
        method=cv2.RANSAC,
        ransacReprojThreshold=tolerance,
        maxIters=1000,
        confidence=0.999,
        refineIters=20,
    )
    if found is None:
        return np.zeros((2, 3)), np.zeros(len(places), bool)
    return found, mask.ravel() > 0


def sides(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (K, 2, 2) in the first and in the second photo, as OpenCV takes them: (K, 2), contiguous."""
    first, second = (np.ascontiguousarray(places[:, side], np.float32) for side in (0, 1))
    return first, second


def apply(mapping: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where an affine map (2, 3) takes places (..., 2)."""
    return places @ mapping[:, :2].T + mapping[:, 2]

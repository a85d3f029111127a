-- name: forget_month
-- Asks for every line of a detached month to be computed again.
INSERT INTO catalog_changes (slug, seller, currency)
SELECT DISTINCT product_name_normalized, seller, currency FROM {month}

-- name: fold_changes
-- Folds one part of the change log.
SELECT changes, lines, computed FROM catalog_fold_changes(%(at_most)s)

-- name: project_cards
-- Brings the cards up to the lines; false where they were.
SELECT catalog_project_cards(%(force)s)

-- name: count_changes
-- How many changes wait for the fold.
SELECT count(*) FROM catalog_changes

-- name: cards_behind
-- How many folds the cards are behind.
SELECT folded - projected FROM catalog_fold_state

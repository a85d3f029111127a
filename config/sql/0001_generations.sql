-- Says that readers of a read model have something new to see. Called in the transaction that
-- changes it, so that no cached answer outlives a change whoever made it, killed or not.
CREATE FUNCTION config_raise_generation(model text)
RETURNS void LANGUAGE sql AS $fn$
    INSERT INTO config_readmodelstate (name, generation, error) VALUES (model, 1, '')
    ON CONFLICT (name) DO UPDATE SET generation = config_readmodelstate.generation + 1
$fn$;

"""The objects of a schema."""

from sqlalchemy import text

# Everything in a schema that a migration could make, as PostgreSQL itself writes it.
OBJECTS = text("""
    SELECT 'relation', n.nspname, c.relname, c.relkind::text, coalesce(array_to_string(c.reloptions, ','), '')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY(:schemas)
    UNION ALL
    SELECT 'column', n.nspname, c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
        concat_ws(' ', a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname = ANY(:schemas) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'constraint', n.nspname, c.conname, c.conrelid::regclass::text, pg_get_constraintdef(c.oid)
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = ANY(:schemas)
    UNION ALL
    SELECT 'index', schemaname, indexname, tablename, indexdef FROM pg_indexes WHERE schemaname = ANY(:schemas)
    UNION ALL
    SELECT 'function', n.nspname, p.proname, '', pg_get_functiondef(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY(:schemas)
    UNION ALL
    SELECT 'trigger', n.nspname, t.tgname, t.tgrelid::regclass::text, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND NOT t.tgisinternal
    UNION ALL
    SELECT 'type', n.nspname, t.typname, t.typtype::text, ''
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = ANY(:schemas) AND t.typtype IN ('e', 'd')
""")

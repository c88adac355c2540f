-- The first tables of the label store, in words that SQLite and PostgreSQL share.

CREATE TABLE chain (
    id INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    hash VARCHAR(64) NOT NULL,
    CONSTRAINT pk_chain PRIMARY KEY (id),
    CONSTRAINT ck_chain_one_row CHECK (id = 1)
);

CREATE TABLE event (
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor VARCHAR(64) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    project VARCHAR(64),
    subject VARCHAR(64) NOT NULL,
    body TEXT NOT NULL,
    prev_hash VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    CONSTRAINT pk_event PRIMARY KEY (seq),
    CONSTRAINT uq_event_hash UNIQUE (hash)
);
CREATE INDEX ix_event_project ON event (project, seq);

CREATE TABLE person (
    id VARCHAR(64) NOT NULL,
    pseudonym VARCHAR(80) NOT NULL,
    is_admin BOOLEAN NOT NULL,
    state VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_person PRIMARY KEY (id),
    CONSTRAINT ck_person_state_known CHECK (state IN ('active', 'blocked', 'erased')),
    CONSTRAINT uq_person_pseudonym UNIQUE (pseudonym)
);

CREATE TABLE project (
    id VARCHAR(64) NOT NULL,
    slug VARCHAR(80) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    config TEXT NOT NULL,
    config_version INTEGER DEFAULT 1 NOT NULL,
    secret VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    lease_ms INTEGER DEFAULT 0 NOT NULL,
    budget TEXT,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_project PRIMARY KEY (id),
    CONSTRAINT ck_project_state_known CHECK (state IN ('open', 'paused', 'closed')),
    CONSTRAINT uq_project_slug UNIQUE (slug)
);

CREATE TABLE prompt (
    id VARCHAR(64) NOT NULL,
    content TEXT,
    sha256 VARCHAR(64) NOT NULL,
    bucket INTEGER NOT NULL,
    CONSTRAINT pk_prompt PRIMARY KEY (id),
    CONSTRAINT ck_prompt_bucket_in_range CHECK (bucket >= 0 AND bucket < 10000)
);

CREATE TABLE segment (
    id VARCHAR(64) NOT NULL,
    spec TEXT NOT NULL,
    arrays_sha256 VARCHAR(64),
    fps FLOAT NOT NULL,
    frames INTEGER NOT NULL,
    CONSTRAINT pk_segment PRIMARY KEY (id),
    CONSTRAINT ck_segment_has_length CHECK (fps > 0 AND frames > 0)
);

CREATE TABLE throttle (
    "key" VARCHAR(64) NOT NULL,
    tries INTEGER NOT NULL,
    tried_at BIGINT NOT NULL,
    CONSTRAINT pk_throttle PRIMARY KEY ("key")
);

CREATE TABLE candidate (
    id VARCHAR(64) NOT NULL,
    content TEXT,
    segment VARCHAR(64),
    sha256 VARCHAR(64) NOT NULL,
    source TEXT,
    CONSTRAINT pk_candidate PRIMARY KEY (id),
    CONSTRAINT fk_candidate_segment FOREIGN KEY(segment) REFERENCES segment (id)
);

CREATE TABLE guideline (
    project VARCHAR(64) NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_guideline PRIMARY KEY (project, version),
    CONSTRAINT fk_guideline_project FOREIGN KEY(project) REFERENCES project (id)
);

CREATE TABLE identity (
    person VARCHAR(64) NOT NULL,
    name TEXT,
    email VARCHAR(254) NOT NULL,
    password_hash TEXT,
    CONSTRAINT pk_identity PRIMARY KEY (person),
    CONSTRAINT fk_identity_person FOREIGN KEY(person) REFERENCES person (id),
    CONSTRAINT uq_identity_email UNIQUE (email)
);

CREATE TABLE invitation (
    id VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    project VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_by VARCHAR(64),
    CONSTRAINT pk_invitation PRIMARY KEY (id),
    CONSTRAINT uq_invitation_hash UNIQUE (hash),
    CONSTRAINT fk_invitation_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_invitation_used_by FOREIGN KEY(used_by) REFERENCES person (id)
);

CREATE TABLE item (
    id VARCHAR(64) NOT NULL,
    project VARCHAR(64) NOT NULL,
    "key" VARCHAR(120) NOT NULL,
    role VARCHAR(16) NOT NULL,
    prompt VARCHAR(64),
    extra TEXT NOT NULL,
    content_sha256 VARCHAR(64) NOT NULL,
    pool VARCHAR(32) NOT NULL,
    origin VARCHAR(120) NOT NULL,
    author VARCHAR(64),
    for_person VARCHAR(64),
    repeats VARCHAR(64),
    skill VARCHAR(64),
    need INTEGER DEFAULT 1 NOT NULL,
    priority INTEGER DEFAULT 0 NOT NULL,
    tiebreak BIGINT NOT NULL,
    policy_step BIGINT,
    p_select FLOAT,
    acquirer VARCHAR(64),
    state VARCHAR(16) NOT NULL,
    closed VARCHAR(16),
    n_valid INTEGER DEFAULT 0 NOT NULL,
    n_live INTEGER DEFAULT 0 NOT NULL,
    n_cannot INTEGER DEFAULT 0 NOT NULL,
    n_invalid INTEGER DEFAULT 0 NOT NULL,
    n_skips INTEGER DEFAULT 0 NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    CONSTRAINT pk_item PRIMARY KEY (id),
    CONSTRAINT uq_item_project_key UNIQUE (project, "key"),
    CONSTRAINT ck_item_role_known CHECK (role IN ('normal', 'gold', 'repeat', 'anchor', 'practice')),
    CONSTRAINT ck_item_state_known CHECK (state IN ('ready', 'satisfied', 'quarantined', 'hard', 'archived', 'expired')),
    CONSTRAINT ck_item_counts CHECK (n_valid >= 0 AND n_live >= 0 AND need >= 0),
    CONSTRAINT ck_item_set_aside CHECK (n_cannot >= 0 AND n_invalid >= 0 AND n_skips >= 0),
    CONSTRAINT ck_item_not_over_assigned CHECK (role IN ('gold', 'anchor', 'practice') OR n_valid + n_live <= need),
    CONSTRAINT fk_item_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_item_prompt FOREIGN KEY(prompt) REFERENCES prompt (id),
    CONSTRAINT fk_item_author FOREIGN KEY(author) REFERENCES person (id)
);
CREATE INDEX ix_item_for_person ON item (project, for_person);
CREATE INDEX ix_item_open ON item (project, role, priority DESC, n_valid, tiebreak) WHERE state = 'ready' AND n_valid + n_live < need;

CREATE TABLE media (
    id VARCHAR(64) NOT NULL,
    segment VARCHAR(64) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    state VARCHAR(16) NOT NULL,
    path TEXT,
    sha256 VARCHAR(64),
    bytes BIGINT,
    probe TEXT,
    CONSTRAINT pk_media PRIMARY KEY (id),
    CONSTRAINT ck_media_state_known CHECK (state IN ('pending', 'rendering', 'ready', 'failed')),
    CONSTRAINT uq_media_segment_kind UNIQUE (segment, kind),
    CONSTRAINT fk_media_segment FOREIGN KEY(segment) REFERENCES segment (id)
);

CREATE TABLE membership (
    project VARCHAR(64) NOT NULL,
    person VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    skills TEXT NOT NULL,
    daily_cap INTEGER,
    guideline_seen INTEGER DEFAULT 0 NOT NULL,
    n_claims INTEGER DEFAULT 0 NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_membership PRIMARY KEY (project, person),
    CONSTRAINT ck_membership_role_known CHECK (role IN ('annotator', 'reviewer', 'researcher')),
    CONSTRAINT ck_membership_state_known CHECK (state IN ('active', 'paused', 'removed')),
    CONSTRAINT fk_membership_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_membership_person FOREIGN KEY(person) REFERENCES person (id)
);

CREATE TABLE session (
    hash VARCHAR(64) NOT NULL,
    person VARCHAR(64) NOT NULL,
    csrf VARCHAR(64) NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    agent TEXT,
    CONSTRAINT pk_session PRIMARY KEY (hash),
    CONSTRAINT fk_session_person FOREIGN KEY(person) REFERENCES person (id)
);
CREATE INDEX ix_session_person ON session (person);

CREATE TABLE token (
    id VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    name VARCHAR(80) NOT NULL,
    project VARCHAR(64),
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT,
    CONSTRAINT pk_token PRIMARY KEY (id),
    CONSTRAINT uq_token_hash UNIQUE (hash),
    CONSTRAINT fk_token_project FOREIGN KEY(project) REFERENCES project (id)
);

CREATE TABLE gold (
    item VARCHAR(64) NOT NULL,
    answer TEXT NOT NULL,
    explanation TEXT NOT NULL,
    difficulty FLOAT,
    CONSTRAINT pk_gold PRIMARY KEY (item),
    CONSTRAINT fk_gold_item FOREIGN KEY(item) REFERENCES item (id)
);

CREATE TABLE item_candidate (
    item VARCHAR(64) NOT NULL,
    place INTEGER NOT NULL,
    candidate VARCHAR(64) NOT NULL,
    CONSTRAINT pk_item_candidate PRIMARY KEY (item, place),
    CONSTRAINT fk_item_candidate_item FOREIGN KEY(item) REFERENCES item (id),
    CONSTRAINT fk_item_candidate_candidate FOREIGN KEY(candidate) REFERENCES candidate (id)
);

CREATE TABLE lease (
    id VARCHAR(64) NOT NULL,
    item VARCHAR(64) NOT NULL,
    project VARCHAR(64) NOT NULL,
    person VARCHAR(64) NOT NULL,
    shown TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    arm VARCHAR(32),
    holds BOOLEAN NOT NULL,
    state VARCHAR(16) NOT NULL,
    claimed_at BIGINT NOT NULL,
    beat_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    reopened_at BIGINT,
    CONSTRAINT pk_lease PRIMARY KEY (id),
    CONSTRAINT ck_lease_state_known CHECK (state IN ('live', 'done', 'released', 'expired')),
    CONSTRAINT fk_lease_item FOREIGN KEY(item) REFERENCES item (id),
    CONSTRAINT fk_lease_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_lease_person FOREIGN KEY(person) REFERENCES person (id)
);
CREATE INDEX ix_lease_live ON lease (project, expires_at) WHERE state = 'live';
CREATE INDEX ix_lease_person ON lease (project, person, state);
CREATE UNIQUE INDEX uq_lease_live ON lease (item, person) WHERE state = 'live';

CREATE TABLE draft (
    lease VARCHAR(64) NOT NULL,
    body TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_draft PRIMARY KEY (lease),
    CONSTRAINT fk_draft_lease FOREIGN KEY(lease) REFERENCES lease (id)
);

CREATE TABLE judgment (
    id VARCHAR(64) NOT NULL,
    project VARCHAR(64) NOT NULL,
    item VARCHAR(64) NOT NULL,
    person VARCHAR(64) NOT NULL,
    lease VARCHAR(64),
    submission_id VARCHAR(120) NOT NULL,
    body_sha256 VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    version INTEGER NOT NULL,
    replaces VARCHAR(64),
    state VARCHAR(16) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    side INTEGER,
    level INTEGER,
    scale VARCHAR(32),
    answer TEXT NOT NULL,
    shown TEXT NOT NULL,
    timing TEXT NOT NULL,
    client TEXT NOT NULL,
    counted BOOLEAN NOT NULL,
    surplus BOOLEAN NOT NULL,
    practice BOOLEAN NOT NULL,
    late BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT pk_judgment PRIMARY KEY (id),
    CONSTRAINT ck_judgment_role_known CHECK (role IN ('label', 'adjudication')),
    CONSTRAINT ck_judgment_state_known CHECK (state IN ('standing', 'replaced', 'withdrawn')),
    CONSTRAINT ck_judgment_prefer_has_side_and_level CHECK ((outcome = 'prefer' AND side IS NOT NULL AND level IS NOT NULL AND level >= 1 AND scale IS NOT NULL) OR (outcome <> 'prefer' AND side IS NULL AND level IS NULL)),
    CONSTRAINT ck_judgment_side_is_one_of_two CHECK (side IS NULL OR side IN (0, 1)),
    CONSTRAINT ck_judgment_later_versions_replace CHECK ((version = 1) = (replaces IS NULL)),
    CONSTRAINT fk_judgment_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_judgment_item FOREIGN KEY(item) REFERENCES item (id),
    CONSTRAINT fk_judgment_person FOREIGN KEY(person) REFERENCES person (id),
    CONSTRAINT fk_judgment_lease FOREIGN KEY(lease) REFERENCES lease (id),
    CONSTRAINT uq_judgment_submission_id UNIQUE (submission_id),
    CONSTRAINT fk_judgment_replaces FOREIGN KEY(replaces) REFERENCES judgment (id),
    CONSTRAINT uq_judgment_seq UNIQUE (seq)
);
CREATE INDEX ix_judgment_lease ON judgment (lease);
CREATE INDEX ix_judgment_person ON judgment (project, person, seq);
CREATE UNIQUE INDEX uq_judgment_standing ON judgment (item, person, role) WHERE state = 'standing' AND NOT practice;

CREATE TABLE skip (
    id VARCHAR(64) NOT NULL,
    project VARCHAR(64) NOT NULL,
    lease VARCHAR(64) NOT NULL,
    item VARCHAR(64) NOT NULL,
    person VARCHAR(64) NOT NULL,
    mode VARCHAR(16) NOT NULL,
    reason VARCHAR(32) NOT NULL,
    note TEXT,
    created_at BIGINT NOT NULL,
    until BIGINT,
    state VARCHAR(16) NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT pk_skip PRIMARY KEY (id),
    CONSTRAINT ck_skip_mode_known CHECK (mode IN ('me', 'others', 'ignore')),
    CONSTRAINT ck_skip_state_known CHECK (state IN ('standing', 'undone')),
    CONSTRAINT fk_skip_project FOREIGN KEY(project) REFERENCES project (id),
    CONSTRAINT fk_skip_lease FOREIGN KEY(lease) REFERENCES lease (id),
    CONSTRAINT fk_skip_item FOREIGN KEY(item) REFERENCES item (id),
    CONSTRAINT fk_skip_person FOREIGN KEY(person) REFERENCES person (id),
    CONSTRAINT uq_skip_seq UNIQUE (seq)
);
CREATE INDEX ix_skip_item ON skip (item, person);
CREATE INDEX ix_skip_person ON skip (project, person, seq);

INSERT INTO chain (id, seq, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

package bite

// What reports of a history begin with, at the start of a line or behind the
// place in the test.
const (
	lost    = `(?:^|\d: )\s*lost: `
	doubled = `(?:^|\d: )\s*doubled: `
	// either of the two: what was told and then forgotten is lost, or comes again.
	either  = `(?:^|\d: )\s*(?:lost|doubled): `
	changed = `(?:^|\d: )\s*changed: `
)

// Mutations are the promises that the suites are shown to watch over.
var Mutations = []Mutation{
	{
		Name: "sync",
		Edits: []Edit{{
			File: "relay/spool/journal/writer.go",
			Old:  "if err := w.active.file.Sync(); err != nil {",
			New:  "if err := error(nil); err != nil {",
		}, { // or the index, which is synced behind the journal, shows what is gone
			File: "relay/spool/index/badger.go",
			Old:  "WithSyncWrites(true)",
			New:  "WithSyncWrites(false)",
		}},
		Runs: []Run{
			{Suite: "power", Test: "TestPowerLoss", Seed: 1, Want: lost},
			{Suite: "simulation", Test: "TestSeeds", Seed: 1, Env: []string{"TORTURE_SEEDS=100"}, Want: lost},
		},
	},
	{
		Name: "receipt behind the sync",
		Edits: []Edit{{
			File: "relay/spool/journal/writer.go",
			Old: `	if durable && w.synced < w.last {
		if err := w.sync(); err != nil { // 3
			return err
		}
	}
	for i, t := range batch { // 4
		if t != nil {
			w.j.queue.finish(t, nil)
			batch[i] = nil
		}
	}
`,
			New: `	for i, t := range batch { // 4
		if t != nil {
			w.j.queue.finish(t, nil)
			batch[i] = nil
		}
	}
	if durable && w.synced < w.last {
		if err := w.sync(); err != nil { // 3
			return err
		}
	}
`,
		}},
		Runs: []Run{
			{Suite: "power", Test: "TestPowerLoss", Seed: 1, Env: []string{"TORTURE=long"}, Want: either},
			{Suite: "simulation", Test: "TestSeeds", Seed: 1, Env: []string{"TORTURE_SEEDS=3000"}, Want: either},
		},
	},
	{
		Name: "dedupe of what was delivered",
		Edits: []Edit{{
			File: "relay/spool/duties.go",
			Old:  "	case d == nil:\n		return true\n	case d.Place == kept:",
			New:  "	case d == nil || d.Place == settled:\n		return true\n	case d.Place == kept:",
		}},
		Runs: []Run{{Suite: "campaign", Test: "TestKills", Seed: 1, Want: doubled}},
	},
	{
		Name: "dedupe of what is handed in again",
		Edits: []Edit{{
			File: "relay/spool/duties.go",
			Old:  "	case d == nil:\n		return true\n	case d.Place == kept:",
			New:  "	case d == nil || c.FromSender:\n		return true\n	case d.Place == kept:",
		}, {
			File: "relay/ingress/submit.go",
			Old:  "if record, ok, err := s.accepted(sub); err != nil || ok {",
			New:  "if record, ok, err := s.accepted(sub); err != nil || ok && false {",
		}},
		// Where the second life of an envelope is not delivered again, it never ends.
		Runs: []Run{{Suite: "campaign", Test: "TestKills", Seed: 1, Want: doubled + `|still not so`}},
	},
	{
		Name: "memory of what has ended, when the index is lost",
		Edits: []Edit{{
			File: "relay/spool/space.go",
			Old:  "if err := c.registerAll(ctx); err != nil {",
			New:  "if err := error(nil); err != nil {",
		}, {
			File: "relay/spool/register_keep.go",
			Old:  "if err := c.registerAll(ctx); err != nil { // so that",
			New:  "if err := error(nil); err != nil { // so that",
		}},
		Runs: []Run{{Suite: "simulation", Test: "TestSeeds", Seed: 1, Env: []string{"TORTURE_SEEDS=150"}, Want: doubled}},
	},
	{
		Name: "what is said of a document, kept before the receipt",
		Edits: []Edit{{
			File: "relay/ingress/submit.go",
			Old:  "		err = judged.Hear(ctx, record)\n	}\n	return record, false, warnings, err",
			New:  "		err = error(nil)\n	}\n	return record, false, warnings, err",
		}},
		Runs: []Run{{Suite: "simulation", Test: "TestSeeds", Seed: 1, Env: []string{"TORTURE_SEEDS=33"}, Want: "is kept 0 times|which has accepted it"}},
	},
	{
		Name: "word to a recipient whose confirmation came behind a recall",
		Edits: []Edit{{
			File: "relay/ingress/confirm.go",
			Old:  "if settled < len(settlements) {",
			New:  "if false {",
		}},
		Runs: []Run{{Suite: "simulation", Test: "TestSeeds", Seed: 1, Env: []string{"TORTURE_SEEDS=4000"}, Want: "and its sender is told that it was taken back before"}},
	},
	{
		Name: "pause of a recall that overtook its document",
		Edits: []Edit{{
			File: "relay/forward/pass.go",
			Old:  "exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED && refusal.RetryAfter == 0 {",
			New:  "exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {",
		}},
		Runs: []Run{{Suite: "simulation", Test: "TestSeeds", Seed: 1841, Want: lost}},
	},
	{
		Name: "look into files for the mark of a secret",
		Edits: []Edit{{
			File: "relay/ingress/secrecy.go",
			Old:  "	if len(problems) == 0 {",
			New:  "	if true {",
		}},
		Runs: []Run{{Suite: "../relay", Test: "TestSecretsNeverEnter", Seed: 1, Want: "STATE_SECRET|want.*refus"}},
	},
	{
		Name: "hash check at ingress",
		Edits: []Edit{{
			File: "relay/spool/commit.go",
			Old:  "if [32]byte(p.sum.Sum(nil)) == want.SHA256 {",
			New:  "if true || [32]byte(p.sum.Sum(nil)) == want.SHA256 {",
		}},
		Runs: []Run{{Suite: "campaign", Test: "TestKills", Seed: 1, Want: lost}},
	},
	{
		Name: "checks of content on disk and at the recipient",
		Edits: []Edit{{
			File: "relay/spool/journal/read.go",
			Old:  "if checkContent([][]byte{payload}) != h.content {",
			New:  "if false {",
		}, {
			File: "relay/spool/journal/walk.go",
			Old:  "if checkContent([][]byte{out.Payload}) != h.content {",
			New:  "if false {",
		}, {
			File: "relay/spool/commit.go",
			Old:  "if [32]byte(p.sum.Sum(nil)) == want.SHA256 {",
			New:  "if true || [32]byte(p.sum.Sum(nil)) == want.SHA256 {",
		}, {
			File: "relay/agency/save.go",
			Old:  "if bytes.Equal(sum, part.GetSha256()) {",
			New:  "if true || bytes.Equal(sum, part.GetSha256()) {",
		}},
		Runs: []Run{{Suite: "rot", Test: "TestContent", Seed: 1, Env: []string{"TORTURE=long"}, Want: changed}},
	},
	{
		Name: "second copy, told all the same",
		Edits: []Edit{{
			File: "relay/envelope/receipt.go",
			Old:  "max(r.Copies, 1)",
			New:  "max(r.Copies, 2)",
		}, {
			File: "relay/ingress/copies.go",
			Old:  "	if record.Copies >= 2 || record.ContentReleased {",
			New:  "	if true || record.Copies >= 2 || record.ContentReleased {",
		}},
		Runs: []Run{{Suite: "campaign", Test: "TestOperations", Seed: 1, Want: lost}},
	},
	{
		Name: "second copy when it is accepted",
		Edits: []Edit{{
			File: "relay/ingress/copies.go",
			Old:  "if holder, ok := view.CopyHolder(s.config.Self, recipients, not, s.config.Usable); ok {",
			New:  "if holder, ok := view.CopyHolder(s.config.Self, recipients, not, s.config.Usable); ok && false {",
		}},
		Runs: []Run{{Suite: "isolation", Test: "TestIsolation", Seed: 7, Want: "two copies"}},
	},
	{
		Name: "tail rule of the journal",
		Edits: []Edit{{
			File: "relay/spool/journal/recover.go",
			Old:  "case f.bad && f.first > v.known && !l.truncated:",
			New:  "case f.bad && !l.truncated:",
		}},
		Runs: []Run{{Suite: "rot", Test: "TestWorstPlaces", Seed: 1, Env: []string{"TORTURE=long"}, Want: `has taken damage for the end of its journal`}},
	},
	{
		Name: "sync of the Raft log",
		Edits: []Edit{{
			File: "consensus/store.go",
			Old:  "raftboltdb.New(raftboltdb.Options{Path: path,",
			New:  "raftboltdb.New(raftboltdb.Options{NoSync: true, Path: path,",
		}},
		// It does not serve with a log that is shorter than what it knows to be committed.
		Runs: []Run{{Suite: "power", Test: "TestPowerLoss", Seed: 1, Want: `relay \w+ does not start`}},
	},
	{
		Name: "current reads of the directory",
		Edits: []Edit{{
			File: "relay/directoryservice.go",
			Old:  "if err := d.relay.config.Directory.ReadBarrier(ctx); err != nil {",
			New:  "if err := error(nil); err != nil {",
		}},
		Runs: []Run{{Suite: "directory", Test: "TestDirectoryLinearizable", Seed: 7, Want: "linearizable"}},
	},
}

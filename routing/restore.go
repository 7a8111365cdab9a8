package routing

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// readSnapshot builds a new state from a snapshot, or says what is wrong.
func readSnapshot(r io.Reader) (*state, error) {
	in := &recordReader{r: bufio.NewReader(r), sum: sha256.New()}
	load := &loader{t: begin(newState())}
	done := false
	defer func() {
		if !done {
			load.t.abort()
		}
	}()
	for {
		m, err := in.read()
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", in.records, err)
		}
		if in.ended {
			break
		}
		if err := load.record(m); err != nil {
			return nil, fmt.Errorf("record %d: %w", in.records-1, err)
		}
	}
	if _, err := in.r.ReadByte(); err != io.EOF {
		return nil, errors.New("bytes follow the end")
	}
	if err := load.complete(); err != nil {
		return nil, err
	}
	done = true
	return load.t.commit(), nil
}

// recordReader reads records and, at the end, compares count and hash.
type recordReader struct {
	r       *bufio.Reader
	sum     hash.Hash
	buffer  []byte
	records uint64
	ended   bool
}

func (in *recordReader) read() (*directoryv1.SnapshotRecord, error) {
	in.buffer = in.buffer[:0]
	for {
		b, err := in.r.ReadByte()
		if err != nil {
			return nil, cutShort(err)
		}
		in.buffer = append(in.buffer, b)
		if b < 0x80 {
			break
		}
		if len(in.buffer) == binary.MaxVarintLen64 {
			return nil, errors.New("length is damaged")
		}
	}
	size, width := binary.Uvarint(in.buffer)
	if width <= 0 || size > maxRecord {
		return nil, fmt.Errorf("length %d is damaged, a record has at most %d bytes", size, maxRecord)
	}
	in.buffer = append(in.buffer, make([]byte, size)...)
	if _, err := io.ReadFull(in.r, in.buffer[width:]); err != nil {
		return nil, cutShort(err)
	}
	m := new(directoryv1.SnapshotRecord)
	if err := proto.Unmarshal(in.buffer[width:], m); err != nil {
		return nil, err
	}
	if end := m.GetEnd(); end != nil {
		if end.GetRecords() != in.records || !bytes.Equal(end.GetSha256(), in.sum.Sum(nil)) {
			return nil, fmt.Errorf("count or hash of the %d records before the end is not the one it states", in.records)
		}
		in.ended = true
		return m, nil
	}
	in.sum.Write(in.buffer)
	in.records++
	return m, nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the snapshot is cut short")
	}
	return err
}

// loader puts records into a new state. It trusts no field: a snapshot that
// the operator restores may come from anywhere.
type loader struct {
	t       *tx
	table   int    // of the record before, as numbered in SnapshotRecord
	key     string // of the record before
	started bool
}

func (l *loader) record(m *directoryv1.SnapshotRecord) error {
	if header := m.GetHeader(); !l.started || header != nil {
		if l.started || header == nil || header.GetFormat() != snapshotFormat {
			return fmt.Errorf("a snapshot begins with one header of format %d", snapshotFormat)
		}
		l.started, l.t.version = true, header.GetVersion()
		return nil
	}
	var p problems
	switch x := m.GetRecord().(type) {
	case *directoryv1.SnapshotRecord_Relay:
		p.relay(x.Relay)
		return l.row(&p, 2, relayTable, x.Relay.GetId(), x.Relay)
	case *directoryv1.SnapshotRecord_Agency:
		return l.agency(x.Agency)
	case *directoryv1.SnapshotRecord_Gateway:
		if p.gateway(x.Gateway); !p.found() {
			l.t.checkKeys(&p, holder{}, x.Gateway.GetKeyHashes())
			l.checkCodes(&p, x.Gateway.GetAgencyCodes())
		}
		if !p.found() {
			l.t.bind(holder{"gateway", x.Gateway.GetId()}, nil, x.Gateway.GetKeyHashes())
		}
		return l.row(&p, 4, gatewayTable, x.Gateway.GetId(), x.Gateway)
	case *directoryv1.SnapshotRecord_Group:
		p.group(x.Group)
		l.checkCodes(&p, x.Group.GetAgencyCodes())
		return l.row(&p, 5, groupTable, x.Group.GetName(), x.Group)
	case *directoryv1.SnapshotRecord_Rule:
		x.Rule.From, x.Rule.To = orAny(x.Rule.GetFrom()), orAny(x.Rule.GetTo())
		p.rule(x.Rule)
		return l.row(&p, 6, ruleTable, x.Rule.GetId(), x.Rule)
	case *directoryv1.SnapshotRecord_TrustRoot:
		p.trustRoot(x.TrustRoot)
		return l.row(&p, 7, trustRootTable, trustRootKey(x.TrustRoot), x.TrustRoot)
	case *directoryv1.SnapshotRecord_Revocation:
		p.revocation(x.Revocation)
		return l.row(&p, 8, revocationTable, revocationKey(x.Revocation), x.Revocation)
	case *directoryv1.SnapshotRecord_Staged:
		return l.stage(x.Staged)
	default:
		return errors.New("not a record that this release knows")
	}
}

// row inserts a row that must come after the one before it.
func (l *loader) row(p *problems, table int, name, key string, row any) error {
	if err := l.inOrder(p, table, key, false); err != nil {
		return err
	}
	l.t.insert(name, row)
	return nil
}

func (l *loader) inOrder(p *problems, table int, key string, mayRepeat bool) error {
	if p.found() {
		return fmt.Errorf("%q: %w", key, p.err())
	}
	if table < l.table || table == l.table && (key < l.key || key == l.key && !mayRepeat) {
		return fmt.Errorf("%q is out of order", key)
	}
	l.table, l.key = table, key
	return nil
}

func (l *loader) agency(a *directoryv1.Agency) error {
	var p problems
	if p.agency(a); !p.found() {
		for _, name := range append([]string{a.GetCode()}, a.GetAliases()...) {
			if other := l.t.lookup(name); other != nil {
				p.add(conflict, "code or alias %s belongs to %s", name, other.GetCode())
			}
		}
		l.t.checkKeys(&p, holder{}, a.GetKeyHashes())
	}
	if err := l.inOrder(&p, 3, a.GetCode(), false); err != nil {
		return err
	}
	version := a.GetVersion()
	l.t.storeAgency(nil, a)
	a.Version = version
	return nil
}

func (l *loader) checkCodes(p *problems, codes []string) {
	for i, code := range codes {
		if e := l.t.lookup(code); e == nil || e.GetCode() != code {
			p.add(notFound, "agency %q is not in the directory", code)
		}
		if i > 0 && codes[i-1] >= code {
			p.invalid("agency_codes are out of order at %q", code)
		}
	}
}

func (l *loader) stage(x *directoryv1.ImportAgencies) error {
	var p problems
	p.text("staging", x.GetStaging(), 1, maxStagingName, false)
	if err := l.inOrder(&p, 9, x.GetStaging(), true); err != nil {
		return err
	}
	if len(x.GetAgencies()) == 0 || slices.Contains(x.GetAgencies(), nil) {
		return errors.New("staged agencies are missing")
	}
	if l.t.staged == nil {
		l.t.staged = map[string][]*directoryv1.Agency{}
	}
	l.t.staged[x.GetStaging()] = append(l.t.staged[x.GetStaging()], x.GetAgencies()...)
	return nil
}

// complete checks what one record cannot show: that superiors exist and form
// no circle, and that homes and standbys are relays in service.
func (l *loader) complete() error {
	if !l.started {
		return errors.New("the snapshot has no header")
	}
	relays := map[string]*directoryv1.Relay{}
	for r := range all[*directoryv1.Relay](l.t.rows, relayTable) {
		relays[r.GetId()] = r
	}
	rooted := map[string]bool{}
	for e := range all[*entry](l.t.rows, agencyTable) {
		if home := relays[e.GetHomeRelayId()]; home == nil || !inService(home) {
			return fmt.Errorf("agency %s: home relay %q is not in service", e.GetCode(), e.GetHomeRelayId())
		}
		standby := relays[e.GetStandbyRelayId()]
		if e.GetStandbyRelayId() != "" && (standby == nil || !inService(standby) || e.GetStandbyRelayId() == e.GetHomeRelayId()) {
			return fmt.Errorf("agency %s: standby relay %q is not another one in service", e.GetCode(), e.GetStandbyRelayId())
		}
		way := map[string]bool{}
		for here := e; !rooted[here.GetCode()]; {
			if way[here.GetCode()] {
				return fmt.Errorf("agency %s is its own superior", here.GetCode())
			}
			way[here.GetCode()] = true
			if here.GetParentCode() == "" {
				break
			}
			above := l.t.lookup(here.GetParentCode())
			if above == nil || above.GetCode() != here.GetParentCode() {
				return fmt.Errorf("agency %s: superior %s is not in the directory", here.GetCode(), here.GetParentCode())
			}
			here = above
		}
		for code := range way {
			rooted[code] = true
		}
	}
	return nil
}

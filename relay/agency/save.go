package agency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protojson"
)

// envelopeFile is the description that Save writes beside the files.
const envelopeFile = "envelope.json"

// Permissions of what Save makes, before the umask.
const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Saved tells what Save wrote.
type Saved struct {
	// Dir is the envelope's folder.
	Dir string
	// Files are the parts, in order of the header.
	Files []SavedFile
	// Repeat: the folder was there already, from an earlier Save.
	Repeat bool
}

// SavedFile is one part on disk.
type SavedFile struct {
	// Name is what the sender called it. The file's own name differs where two
	// parts have one name, or the local system cannot take it.
	Name string
	Path string
	Size uint64
	// SHA256 in hexadecimal, as declared by the sender and found here.
	SHA256 string
}

// description is the layout of envelope.json. "envelope" is Envelope of
// proto/truc/exchange/v1/envelope.proto in the JSON form of protobuf, with the
// field names of the contract (document_id), 64-bit numbers as strings and
// bytes as base64.
type description struct {
	EnvelopeID string `json:"envelope_id"`
	Agency     string `json:"agency"`
	// ArrivedAt is ISO 8601 in Vietnam time (QD28 Art. 14(4)).
	ArrivedAt string          `json:"arrived_at"`
	Files     []describedFile `json:"files"`
	Envelope  json.RawMessage `json:"envelope"`
}

// vietnam is the zone that the axis keeps.
var vietnam = time.FixedZone("+07", 7*60*60)

// describedFile names a file inside the folder.
type describedFile struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256"`
}

// Save writes the envelope to the folder dir/<envelope id>: envelope.json and
// one file per part. The folder appears whole and durable or not at all:
//
//  1. everything is written aside, into the hidden folder dir/.<id>.partial,
//     and each file is synced after its SHA-256 was found to be the sender's; a
//     hidden file in it says that the envelope is not confirmed yet;
//  2. the hidden folder is synced, then renamed to its final name;
//  3. dir is synced. Only now Save returns, and only now may the envelope be
//     confirmed.
//
// A Save that was cut short goes on where it stopped, in this process or the
// next. A folder that is there already is left as it is, whatever was done to
// its files since.
func (a *Arrival) Save(ctx context.Context, dir string) (*Saved, error) {
	ctx, span := a.client.tracer.Start(a.Context(ctx), "save", trace.WithAttributes(attribute.String("truc.envelope.id", a.ID.String())))
	defer span.End()
	saved, err := a.save(ctx, dir)
	if err != nil {
		span.SetStatus(codes.Error, "not saved")
		return nil, fmt.Errorf("save envelope %s: %w", a.ID, err)
	}
	a.folder = saved.Dir
	return saved, nil
}

func (a *Arrival) save(ctx context.Context, dir string) (*Saved, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	final := filepath.Join(dir, a.ID.String())
	if saved, err := a.saved(final); saved != nil || err != nil {
		return saved, err
	}
	partial := filepath.Join(dir, "."+a.ID.String()+".partial")
	if err := os.Mkdir(partial, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	locked, err := lock(partial, false)
	if errors.Is(err, errLocked) {
		return nil, errors.New("another connector is saving it to the same folder just now")
	}
	if err != nil {
		return nil, err
	}
	defer locked.unlock()
	// Another process may have finished meanwhile.
	if saved, err := a.saved(final); saved != nil || err != nil {
		return saved, errors.Join(err, os.RemoveAll(partial))
	}

	parts := a.Envelope.GetHeader().GetParts()
	names := fileNames(parts)
	progress := Progress{}
	for _, part := range parts {
		progress.Total += part.GetSize()
	}
	for i, part := range parts {
		if err := a.savePart(ctx, i, filepath.Join(partial, names[i]), progress); err != nil {
			return nil, err
		}
		progress.Done += part.GetSize()
	}
	if err := removeOthers(partial, names); err != nil {
		return nil, err
	}
	text, err := a.describe(names)
	if err != nil {
		return nil, err
	}
	if err := writeSynced(filepath.Join(partial, envelopeFile), text); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(partial, unconfirmedFile), nil, fileMode); err != nil {
		return nil, err
	}
	if err := syncDir(partial); err != nil {
		return nil, err
	}
	if err := os.Rename(partial, final); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return &Saved{Dir: final, Files: a.files(final, names)}, nil
}

// saved recognizes a folder that an earlier Save made.
func (a *Arrival) saved(final string) (*Saved, error) {
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(final, envelopeFile))
	if err != nil {
		return nil, fmt.Errorf("%s is there, but is no saved envelope: move it away: %w", final, err)
	}
	var d description
	if err := json.Unmarshal(text, &d); err != nil || d.EnvelopeID != a.ID.String() {
		return nil, fmt.Errorf("%s is there, but its %s is not that of the envelope: move it away", final, envelopeFile)
	}
	// The process may have ended between the rename and the sync after it.
	if err := syncDir(filepath.Dir(final)); err != nil {
		return nil, err
	}
	names := make([]string, len(d.Files))
	for i, f := range d.Files {
		names[i] = f.File
	}
	if len(names) != len(a.Envelope.GetHeader().GetParts()) {
		return nil, fmt.Errorf("%s is there, but its %s names other files: move it away", final, envelopeFile)
	}
	return &Saved{Dir: final, Files: a.files(final, names), Repeat: true}, nil
}

func (a *Arrival) files(dir string, names []string) []SavedFile {
	files := make([]SavedFile, len(names))
	for i, part := range a.Envelope.GetHeader().GetParts() {
		files[i] = SavedFile{
			Name: part.GetName(), Path: filepath.Join(dir, names[i]),
			Size: part.GetSize(), SHA256: hex.EncodeToString(part.GetSha256()),
		}
	}
	return files
}

func (a *Arrival) describe(names []string) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(a.Envelope)
	if err != nil {
		return nil, err
	}
	d := description{
		EnvelopeID: a.ID.String(), Agency: a.Agency, ArrivedAt: a.ArrivedAt.In(vietnam).Format("2006-01-02T15:04:05.000Z07:00"),
		Files: make([]describedFile, len(names)), Envelope: text,
	}
	for i, f := range a.files("", names) {
		d.Files[i] = describedFile{Name: f.Name, File: names[i], Size: f.Size, SHA256: f.SHA256}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxDamaged is how often a part is fetched anew because its bytes were not the
// sender's.
const maxDamaged = 3

// savePart completes one file: what an earlier try left is hashed and kept.
// Progress is that of the parts before.
func (a *Arrival) savePart(ctx context.Context, i int, path string, progress Progress) error {
	part := a.Envelope.GetHeader().GetParts()[i]
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	defer file.Close()
	for try := 1; ; try++ {
		sum, err := a.complete(ctx, i, file, progress)
		if err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
		if bytes.Equal(sum, part.GetSha256()) {
			break
		}
		if err := file.Truncate(0); err != nil {
			return err
		}
		if try == maxDamaged {
			return fmt.Errorf("part %d: %w", i, ErrDamaged)
		}
		a.client.logger.WarnContext(ctx, "content damaged, fetching it again", "envelope", a.ID, "part", i)
		// What came along is no better the second time.
		a.content = nil
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// complete fills file up to the size of the part and returns the SHA-256 of
// all of it.
func (a *Arrival) complete(ctx context.Context, i int, file *os.File, progress Progress) ([]byte, error) {
	size := a.Envelope.GetHeader().GetParts()[i].GetSize()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	offset := uint64(info.Size())
	if offset > size {
		offset = 0
		if err := file.Truncate(0); err != nil {
			return nil, err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	sum := sha256.New()
	hash := &watched{w: sum, at: progress, tell: a.Progress}
	if _, err := io.CopyN(hash, file, int64(offset)); err != nil {
		return nil, err
	}
	content := a.open(ctx, i, offset)
	defer content.Close()
	if _, err := io.Copy(io.MultiWriter(file, hash), content); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// watched tells of every piece that is written.
type watched struct {
	w    io.Writer
	at   Progress
	tell func(Progress)
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	if w.at.Done += uint64(n); w.tell != nil {
		w.tell(w.at)
	}
	return n, err
}

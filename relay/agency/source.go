package agency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Source is the content of one part. It is opened anew for every pass, and must
// give the same bytes each time until the document was accepted.
type Source interface {
	// Name is the file name that recipients see, without a path.
	Name() string
	// Open starts at the first byte.
	Open() (io.ReadSeekCloser, error)
}

// FileSource is a file on disk.
func FileSource(path string) Source { return fileSource(path) }

type fileSource string

func (f fileSource) Name() string { return envelope.CleanName(filepath.Base(string(f))) }

func (f fileSource) Open() (io.ReadSeekCloser, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// BytesSource is content that the program holds.
func BytesSource(name string, content []byte) Source { return bytesSource{name, content} }

type bytesSource struct {
	name    string
	content []byte
}

func (b bytesSource) Name() string { return b.name }

func (b bytesSource) Open() (io.ReadSeekCloser, error) {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b.content), io.NopCloser(nil)}, nil
}

// mediaTypes by ending. The table is ours and not the system's, because the
// media type is part of the envelope's id: the same document handed over from
// two machines must have one.
var mediaTypes = map[string]string{
	".pdf":   "application/pdf",
	".doc":   "application/msword",
	".docx":  "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".xls":   "application/vnd.ms-excel",
	".xlsx":  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".ppt":   "application/vnd.ms-powerpoint",
	".pptx":  "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".odt":   "application/vnd.oasis.opendocument.text",
	".ods":   "application/vnd.oasis.opendocument.spreadsheet",
	".rtf":   "application/rtf",
	".txt":   "text/plain",
	".csv":   "text/csv",
	".xml":   "application/xml",
	".edxml": "application/xml",
	".json":  "application/json",
	".zip":   "application/zip",
	".rar":   "application/vnd.rar",
	".7z":    "application/x-7z-compressed",
	".png":   "image/png",
	".jpg":   "image/jpeg",
	".jpeg":  "image/jpeg",
	".gif":   "image/gif",
	".tif":   "image/tiff",
	".tiff":  "image/tiff",
	".mp3":   "audio/mpeg",
	".mp4":   "video/mp4",
}

func mediaType(name string) string {
	if t, ok := mediaTypes[strings.ToLower(filepath.Ext(name))]; ok {
		return t
	}
	return "application/octet-stream"
}

// digest reads a source once, for its size and SHA-256, and copies it to w.
func digest(ctx context.Context, s Source, w io.Writer, read func(n int)) (uint64, [32]byte, error) {
	r, err := s.Open()
	if err != nil {
		return 0, [32]byte{}, fmt.Errorf("file %s: %w", s.Name(), err)
	}
	defer r.Close()
	h := sha256.New()
	buffer := make([]byte, 256<<10)
	var size uint64
	for {
		if err := ctx.Err(); err != nil {
			return 0, [32]byte{}, err
		}
		n, err := r.Read(buffer)
		h.Write(buffer[:n])
		if _, err := w.Write(buffer[:n]); err != nil {
			return 0, [32]byte{}, err
		}
		size += uint64(n)
		read(n)
		if err == io.EOF {
			return size, [32]byte(h.Sum(nil)), nil
		}
		if err != nil {
			return 0, [32]byte{}, fmt.Errorf("file %s: %w", s.Name(), err)
		}
	}
}

// describe completes the parts of a header from the sources; see
// Document.Header.
func describe(header *exchangev1.Header, sources []Source) error {
	if len(header.GetParts()) == 0 {
		for i, s := range sources {
			role := exchangev1.PartRole_PART_ROLE_ATTACHMENT
			if i == 0 {
				role = exchangev1.PartRole_PART_ROLE_MAIN
			}
			header.Parts = append(header.Parts, &exchangev1.Part{Name: s.Name(), MediaType: mediaType(s.Name()), Role: role})
		}
	}
	if len(header.GetParts()) != len(sources) {
		return fmt.Errorf("the header describes %d files, but %d are given", len(header.GetParts()), len(sources))
	}
	return nil
}

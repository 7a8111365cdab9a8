//go:build unix && !linux

package journal

func (f *systemFile) Allocate(size int64) error { return f.zeroFill(size) }

func (f *systemFile) WriteAt(parts [][]byte, off int64) error {
	whole := make([]byte, 0, totalLength(parts))
	for _, part := range parts {
		whole = append(whole, part...)
	}
	_, err := f.File.WriteAt(whole, off)
	return err
}

func (f *systemFile) WriteBack(int64, int64) error { return nil }

func (f *systemFile) Sync() error { return f.File.Sync() }

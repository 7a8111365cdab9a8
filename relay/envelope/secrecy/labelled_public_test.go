package secrecy_test

import (
	"fmt"
	"maps"
	"strings"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// public are texts about secrecy, and others with the word, that bear no mark.
var public = map[string]string{
	"law":              "Điều 8. Phân loại bí mật nhà nước\nCăn cứ vào tính chất quan trọng của nội dung thông tin, mức độ nguy hại nếu bị lộ, bị mất, bí mật nhà nước được phân loại thành 03 độ mật, bao gồm:\n1. Bí mật nhà nước độ Tuyệt mật là bí mật nhà nước liên quan đến chính trị, quốc phòng, an ninh;\n2. Bí mật nhà nước độ Tối mật là bí mật nhà nước liên quan đến đối ngoại, nếu bị lộ, bị mất có thể gây nguy hại rất nghiêm trọng đến lợi ích quốc gia;\n3. Bí mật nhà nước độ Mật là bí mật nhà nước nếu bị lộ, bị mất có thể gây nguy hại nghiêm trọng đến lợi ích quốc gia, dân tộc.",
	"office":           "V/v tăng cường công tác bảo vệ bí mật nhà nước\nĐề nghị các cơ quan, đơn vị rà soát việc soạn thảo, đóng dấu độ mật, gửi và nhận tài liệu mật; tuyệt đối không gửi văn bản Mật, Tối mật, Tuyệt mật qua trục liên thông văn bản, thư điện tử. Cán bộ làm công tác văn thư phải ký cam kết bảo mật.",
	"rule":             "QUY CHẾ BẢO VỆ BÍ MẬT NHÀ NƯỚC CỦA ỦY BAN NHÂN DÂN TỈNH\nCHƯƠNG II LẬP, THẨM ĐỊNH DANH MỤC BÍ MẬT NHÀ NƯỚC ĐỘ TUYỆT MẬT, TỐI MẬT VÀ ĐỘ MẬT\nĐiều 5. Xác định và đóng dấu độ mật\nNgười soạn thảo đề xuất độ mật của tài liệu; người duyệt ký quyết định độ mật.",
	"list":             "DANH MỤC BÍ MẬT NHÀ NƯỚC TRONG LĨNH VỰC NỘI VỤ\nDanh mục bí mật nhà nước độ Mật gồm: kế hoạch, báo cáo về bảo vệ chính trị nội bộ chưa công khai.",
	"passwords":        "HƯỚNG DẪN ĐỔI MẬT KHẨU TÀI KHOẢN\nMật khẩu phải có ít nhất 12 ký tự. Không tiết lộ mật khẩu cho người khác. Bật xác thực hai lớp để bảo mật tài khoản, khóa bí mật lưu trên thiết bị an toàn.",
	"population":       "Mật độ dân số toàn tỉnh năm 2024 đạt 512 người/km2, mật độ xây dựng tại trung tâm không quá 60%.\nMẬT ĐỘ DÂN SỐ PHÂN THEO HUYỆN",
	"bees":             "Dự án nuôi ong lấy mật tại các xã miền núi; sản lượng mật ong đạt 120 tấn, giá mật bình quân 150.000 đồng/lít. Sản phẩm: Mật ong hoa nhãn.",
	"ciphers":          "Nghị định về mật mã dân sự; Ban Cơ yếu Chính phủ tổ chức lớp bồi dưỡng nghiệp vụ mật mã, cơ yếu. Hội nghị diễn ra trong không khí thân mật.",
	"contract":         "CAM KẾT BẢO MẬT\nBên B cam kết giữ bí mật kinh doanh, không tiết lộ thông tin mật của Bên A cho bên thứ ba.\nĐIỀU KHOẢN BẢO MẬT\nNgười đại diện: Lê Văn Mật",
	"given free":       "ĐÃ GIẢI MẬT\nQuyết định giải mật tài liệu lưu trữ. Tài liệu được giải mật kể từ ngày ký.",
	"table":            "BIỂU THỐNG KÊ VĂN BẢN ĐI\nTuyệt mật\nTối mật\nMật\nTổng số\n0\n2\n15\n17",
	"stamps":           "PHỤ LỤC MẪU DẤU CHỈ ĐỘ MẬT\nMẫu số 01\nTUYỆT MẬT\nMẫu số 02\nTỐI MẬT\nMẫu số 03\nMẬT\nKích thước mẫu dấu: 20mm x 8mm",
	"form":             "PHIẾU TRÌNH\nĐộ mật: □ Tuyệt mật □ Tối mật □ Mật\nĐộ khẩn: Thường",
	"empty fields":     "PHIẾU GỬI\nĐộ mật:\nĐộ khẩn: Khẩn\nĐộ mật: Không\nĐộ mật: Thường\nĐộ mật: .......",
	"letters":          "a) Mật;\nb) Tối mật;\nc) Tuyệt mật.\nCác độ mật trên do người có thẩm quyền xác định.",
	"column":           "DANH MỤC TÀI LIỆU THEO QUYẾT ĐỊNH\nSTT\nTên tài liệu\nĐộ mật\n1\nKế hoạch phòng thủ\nMật\n2\nBáo cáo tổng hợp\nMật\n3\nĐề án\nMật",
	"names":            "DANH SÁCH KHEN THƯỞNG\n1. Nguyễn Thị Mật, thôn Mật Sơn\n2. Trần Văn Mật\nKhu phố Mật Sơn 2, phường Đông Vệ",
	"medicine":         "Khám bệnh viêm túi mật, sỏi mật, đường mật; siêu âm gan mật tụy.\nPHẪU THUẬT CẮT TÚI MẬT",
	"ordinary":         ordinary,
	"levels in a line": "Thẩm quyền xác định bí mật nhà nước: Tuyệt mật, Tối mật, Mật thực hiện theo Luật số 29/2018/QH14.",
}

// afterwards are public texts that were written once the rules stood.
var afterwards = map[string]string{
	"exam":        "KẾ HOẠCH TỔ CHỨC KỲ THI TỐT NGHIỆP TRUNG HỌC PHỔ THÔNG\nĐề thi và đáp án là tài liệu bí mật nhà nước độ Tối mật cho đến khi công bố; việc in sao, vận chuyển đề thi thực hiện theo quy định về bảo vệ bí mật nhà nước. Khu vực làm đề được cách ly tuyệt đối, bảo đảm an toàn, bí mật.",
	"tender":      "THÔNG BÁO MỜI THẦU\nHồ sơ dự thầu được niêm phong và giữ bí mật đến thời điểm mở thầu. Nhà thầu cam kết không tiết lộ thông tin mật. Thông tin liên hệ: Phòng Kế hoạch.",
	"vote":        "Đại hội bầu ban chấp hành bằng hình thức bỏ phiếu kín, bảo đảm nguyên tắc dân chủ, bình đẳng, trực tiếp và bí mật.\nBIÊN BẢN KIỂM PHIẾU BẦU CỬ BÍ MẬT",
	"circular":    "Thông tư quy định mẫu dấu chỉ độ mật, mẫu giao nhận tài liệu, vật chứa bí mật nhà nước\n1. Dấu TUYỆT MẬT, TỐI MẬT, MẬT, GIẢI MẬT, TĂNG MẬT, GIẢM MẬT.\n2. Sổ đăng ký bí mật nhà nước đi, đến; sổ quản lý sao, chụp tài liệu mật.",
	"network":     "Phương án bảo đảm an toàn thông tin theo cấp độ: hệ thống mã hóa bảo mật, chứng thư số, khóa bí mật, kênh truyền bảo mật; thiết bị bảo mật ba trong một.\nYÊU CẦU KỸ THUẬT VỀ BẢO MẬT",
	"health":      "Bảo đảm bí mật thông tin về tình trạng sức khỏe của người bệnh; hồ sơ bệnh án được giữ bí mật. Chỉ định: phẫu thuật nội soi sỏi ống mật chủ.",
	"density":     "Chỉ tiêu quy hoạch: mật độ xây dựng tối đa 40%, tầng cao tối đa 7 tầng, hệ số sử dụng đất 2,8 lần. Mật độ giao thông đạt 6 km/km2. Mật độ cây xanh.",
	"training":    "GIẤY MỜI DỰ TẬP HUẤN CÔNG TÁC BẢO VỆ BÍ MẬT NHÀ NƯỚC NĂM 2025\nThành phần: cán bộ làm công tác cơ yếu, văn thư, người được giao tiếp cận bí mật nhà nước.",
	"inspection":  "Kết quả kiểm tra: năm 2024 cơ quan phát hành 03 văn bản độ Mật, không có văn bản Tối mật và Tuyệt mật; đã trang bị 02 máy tính độc lập để soạn thảo văn bản mật.",
	"informer":    "Cơ quan tiếp nhận tố cáo có trách nhiệm giữ bí mật họ tên, địa chỉ, bút tích của người tố cáo và thông tin khác làm lộ danh tính.",
	"honey farm":  "Hợp tác xã nuôi ong lấy mật Đồng Tâm; sản phẩm OCOP: mật ong bạc hà, mật mía, rượu mật ong. Hạn sử dụng: 24 tháng.",
	"statistics":  "Biểu 03. Số lượng tài liệu bí mật nhà nước\nĐộ mật\nĐi\nĐến\nTuyệt mật\n0\n0\nTối mật\n1\n2\nMật\n12\n30\nCộng\n13\n32",
	"commitment":  "BẢN CAM KẾT\nTôi cam kết chấp hành nghiêm quy định của pháp luật về bảo vệ bí mật nhà nước, không cung cấp, trao đổi thông tin, tài liệu mật dưới mọi hình thức, kể cả sau khi nghỉ hưu, thôi việc.",
	"declassify":  "QUYẾT ĐỊNH\nVề việc giải mật, giảm độ mật tài liệu\nĐiều 1. Giải mật 15 tài liệu độ Mật hình thành từ năm 1995 đến năm 2005.",
	"culture":     "Lễ hội diễn ra trong ba ngày; màn múa Mật Tông; di tích mật khu Dương Minh Châu; các hiện vật của đường dây mật.",
	"budget":      "Phụ lục II\nSố liệu ngân sách được công khai, trừ số liệu thuộc danh mục bí mật nhà nước.\nDỰ TOÁN THU NGÂN SÁCH",
	"header only": "PHIẾU KIỂM SOÁT VĂN BẢN\nĐộ khẩn: Hỏa tốc\nĐộ mật: Không mật\nSố bản: 05",
}

func negatives() []specimen {
	var all []specimen
	add := func(s ...specimen) { all = append(all, s...) }
	for _, subject := range []string{
		"V/v triển khai công tác bảo vệ bí mật nhà nước", "V/v rà soát văn bản mật (lần 2)", "Hướng dẫn bảo mật hệ thống thông tin",
		"V/v quản lý mật ong (xuất khẩu)", "Danh mục bí mật nhà nước độ Tuyệt mật", "Quy định về độ mật (Mật, Tối mật, Tuyệt mật) của tài liệu",
		"DANH MỤC BÍ MẬT NHÀ NƯỚC", "Thông báo về việc giải mật tài liệu", "QUY CHẾ - BẢO MẬT", "Tập huấn an toàn, bảo mật (đợt 1)", "Mật độ xây dựng khu dân cư",
	} {
		add(said("subject", None, InTitle, subject))
	}
	for _, notation := range []string{"12/BC-UBND", "7816/VPCP-TTĐT", "TB-TM", "QĐ-BTM", "12/2026/NĐ-CP", "M-12", "05/TM-UBND", "33/KH-BCĐ(TH)", "KH-UBND (M1)"} {
		add(said("notation", None, InNotation, notation))
	}
	texts := maps.Clone(public)
	maps.Copy(texts, afterwards)
	for name, text := range texts {
		add(said("summary, "+name, None, InText, text))
		add(file("docx: "+name, None, secrecytest.DOCX{Body: letter("", "Về việc sau đây", text)}.Bytes()))
		add(file("docx, cells: "+name, None, secrecytest.DOCX{Raw: "<w:tbl><w:tr><w:tc>" + strings.ReplaceAll(secrecytest.Paragraphs(text), "</w:p>", "</w:p></w:tc><w:tc>") + "</w:tc></w:tr></w:tbl>"}.Bytes()))
		// A sentence breaks somewhere else at every width.
		for width := 18; width <= 90; width += 3 {
			writer := []secrecytest.Writer{secrecytest.Word, secrecytest.LibreOffice}[width%2]
			add(file(fmt.Sprintf("pdf, %d wide: %s", width, name), None, secrecytest.PDF{Writer: writer, Runs: secrecytest.Wrapped(text, width), Packed: width%4 == 0}.Bytes()))
		}
	}
	add(file("pdf: a manual shows one stamp", None, secrecytest.PDF{Runs: secrecytest.Text("HƯỚNG DẪN ĐÓNG DẤU\nDấu được đóng dưới số của văn bản, ví dụ:\n\nMẬT\n\nDấu có viền đơn.")}.Bytes()),
		file("docx: a manual shows one stamp", None, secrecytest.DOCX{Body: "HƯỚNG DẪN ĐÓNG DẤU\nDấu được đóng dưới số của văn bản, ví dụ:\nMẬT\nDấu có viền đơn."}.Bytes()),
		file("docx: a deleted mark", None, secrecytest.DOCX{Body: ordinary, Raw: `<w:p><w:del w:id="1"><w:r><w:delText>MẬT</w:delText></w:r></w:del></w:p>`}.Bytes()),
		file("docx: a remark", None, secrecytest.DOCX{Body: ordinary, Comment: "MẬT"}.Bytes()),
		file("docx: a property that says no", None, secrecytest.DOCX{Body: ordinary, Custom: map[string]string{"Độ mật": "Thường"}}.Bytes()),
		file("pdf: fields that say no", None, secrecytest.PDF{Runs: page(secrecytest.Run{}), Fields: map[string]string{"Độ mật": "Không", "Mật khẩu": "x"}}.Bytes()),
		file("pdf: a title about secrecy", None, secrecytest.PDF{Runs: page(secrecytest.Run{}), Title: "Luật Bảo vệ bí mật nhà nước", Keywords: "bí mật nhà nước, độ mật"}.Bytes()),
		file("pdf: stamps of other kinds", None, secrecytest.PDF{Runs: page(secrecytest.Run{}), Stamps: []string{"HỎA TỐC", "GIẢI MẬT", "ĐẾN"}}.Bytes()),
		file("no document", None, []byte("MẬT\n")),
		file("nothing", None, nil),
		file("zip: other files", None, secrecytest.Zip(map[string]string{"MẬT.txt": "MẬT"})),
	)
	return all
}
